"""The denoiser of motions: padding, adapters, saving, and what it shares with torch's own transformer."""

import pytest
import torch

from prefopt.motion.denoiser import MotionDenoiser, sinusoids

SMALL = {
    "features": 5,
    "max_frames": 12,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "feedforward": 32,
    "text_width": 6,
}


def network(**more) -> MotionDenoiser:
    torch.manual_seed(0)
    return MotionDenoiser(**(SMALL | more)).eval()


def inputs(frames: int = 12):
    g = torch.Generator().manual_seed(1)
    return torch.randn(3, frames, 5, generator=g), torch.tensor([0, 4, 9]), torch.randn(3, 6, generator=g)


@pytest.mark.parametrize("norm_first", [False, True])
def test_frames_behind_the_end_do_not_matter(norm_first):
    model = network(norm_first=norm_first)
    x, t, text = inputs()
    length = torch.tensor([12, 8, 4])
    out = model(x, t, text, length)
    changed = x.clone()
    changed[1, 8:], changed[2, 4:] = 100.0, float("nan")
    other = model(changed.nan_to_num(7.0), t, text, length)
    for n, frames in enumerate(length.tolist()):
        torch.testing.assert_close(other[n, :frames], out[n, :frames])
    short = model(x[2:, :4], t[2:], text[2:], length[2:])
    torch.testing.assert_close(short[0], out[2, :4])


def test_released_models_see_padding():
    model = network(mask_padding=False)
    x, t, text = inputs()
    changed = x.clone()
    changed[:, 8:] = 3.0
    length = torch.tensor([8, 8, 8])
    assert not torch.allclose(model(x, t, text, length)[:, :8], model(changed, t, text, length)[:, :8])


def test_time_and_text_are_read():
    model = network()
    x, t, text = inputs()
    out = model(x, t, text)
    assert not torch.allclose(out, model(x, t + 1, text))
    assert not torch.allclose(out, model(x, t, torch.zeros_like(text)))


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_layer_is_torchs(norm_first):
    model = network(norm_first=norm_first, layers=1)
    block = model.blocks[0]
    theirs = torch.nn.TransformerEncoderLayer(
        16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=norm_first
    ).eval()
    with torch.no_grad():
        attention = theirs.self_attn
        attention.in_proj_weight.copy_(torch.cat([block.to_q.weight, block.to_k.weight, block.to_v.weight]))
        attention.in_proj_bias.copy_(torch.cat([block.to_q.bias, block.to_k.bias, block.to_v.bias]))
        pairs = [
            (attention.out_proj, block.to_out),
            (theirs.linear1, block.up),
            (theirs.linear2, block.down),
            (theirs.norm1, block.norm_attention),
            (theirs.norm2, block.norm_feedforward),
        ]
        for a, b in pairs:
            a.load_state_dict(b.state_dict())
    h = torch.randn(2, 7, 16)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    expected = theirs(h, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(h, mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_sinusoids():
    found = sinusoids(torch.tensor([0, 3]), 4)
    expected = torch.tensor([[0.0, 1.0, 0.0, 1.0], [3.0, 3.0, 0.03, 0.03]])
    expected[1, 0::2], expected[1, 1::2] = expected[1, 0::2].sin(), expected[1, 1::2].cos()
    torch.testing.assert_close(found, expected)


def test_recomputed_activations_give_the_same_gradients():
    x, t, text = inputs()
    grads = []
    for checkpointing in (False, True):
        model = network()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(x, t, text).square().mean().backward()
        grads.append(model.embed_frame.weight.grad.clone())
    torch.testing.assert_close(*grads)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="13 frames for a model of at most 12"):
        network()(*[torch.zeros(1, 13, 5), torch.zeros(1), torch.zeros(1, 6)])
    with pytest.raises(ValueError, match="divisible by heads"):
        network(width=18, heads=4)


def test_it_is_saved_as_diffusers_saves(tmp_path):
    model = network(norm_first=True)
    model.save_pretrained(tmp_path)
    again = MotionDenoiser.from_pretrained(tmp_path).eval()
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    x, t, text = inputs()
    torch.testing.assert_close(again(x, t, text), model(x, t, text))


def test_the_defaults_are_the_released_sizes():
    """The released code prints 17.88M, text encoder aside."""
    assert sum(p.numel() for p in MotionDenoiser().parameters()) == 17_880_327
