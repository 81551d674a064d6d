"""The picture world's task: rendering, captions, exact rewards, masks, preference rows. No model here."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections import Counter

import numpy as np
import pytest
import torch

from prefopt.worlds import get_world
from prefopt.worlds.picture.task import (
    ATTRIBUTES,
    GROUND,
    TEMPLATE_JITTERS,
    TEMPLATE_SATURATIONS,
    aesthetic,
    caption_of,
    draw,
    edges_of,
    parse_caption,
    read,
    render,
    segment,
    soft_match,
    split_of,
)
from prefopt.worlds.pixels import as_batch, as_png

WORLD = get_world("picture")
EVERY = list(itertools.product(range(4), range(6), range(4), range(2)))


def clean(attributes, saturation=1.0, grain=0.0, jitter=(0.0, 0.0), seed=0):
    """Pictures with the same look."""
    attributes_B4 = torch.tensor(attributes)
    n = len(attributes_B4)
    noise = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return render(
        attributes_B4,
        torch.full((n,), saturation),
        torch.full((n,), grain),
        torch.tensor(jitter).expand(n, 2),
        noise,
    )


# -- captions ------------------------------------------------------------------------------------------------


def test_captions_round_trip():
    captions = [caption_of(attributes) for attributes in EVERY]
    assert len(set(captions)) == 192
    assert [parse_caption(c) for c in captions] == EVERY
    assert parse_caption(" A Large  CYAN cross ,bottom right\n") == (3, 5, 3, 1)


@pytest.mark.parametrize(
    "text", ["", "a red circle", "a small red circle top left", "a small red circle, top left!", "a tiny red circle, top left"]
)  # fmt: skip
def test_a_foreign_caption_is_refused(text):
    with pytest.raises(ValueError, match="not a caption of the picture world"):
        WORLD.verify(text, torch.zeros(3, 16, 16))


def test_prompts():
    train, test = WORLD.prompts(144), WORLD.prompts(48, "test")
    assert len({*train, *test}) == 192
    assert WORLD.prompts(400)[:144] == train
    assert set(WORLD.prompts(288)[144:]) == set(train)
    assert WORLD.prompts(288)[144:] != train
    assert get_world("picture", seed=1).prompts(144) != train
    with pytest.raises(ValueError, match="train or test"):
        WORLD.prompts(3, "eval")


def test_the_split_favours_no_pair_of_attribute_values():
    held_out = [attributes for attributes in EVERY if split_of(attributes) == "test"]
    for a, b in itertools.combinations(range(4), 2):
        counts = Counter((attributes[a], attributes[b]) for attributes in held_out)
        every = Counter((attributes[a], attributes[b]) for attributes in EVERY)
        assert counts == {pair: n // 4 for pair, n in every.items()}


# -- rendering -----------------------------------------------------------------------------------------------


def test_a_picture_of_every_kind_is_different_and_in_range():
    images, masks = clean(EVERY)
    assert images.shape == (192, 3, 16, 16)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + 99 * torch.eye(192)
    assert distances.min() > 1
    assert masks.flatten(1).any(1).all()


def test_mirror_images():
    """Left and right, top and bottom differ by a reflection and nothing else."""
    for place, mirrored, axis in ((0, 1, -1), (2, 3, -1), (0, 2, -2), (1, 3, -2)):
        shapes = range(4) if axis == -1 else (0, 1, 3)  # the triangle stands upright
        shift = torch.tensor([0.3, -0.2])
        opposite = shift * torch.tensor([-1.0, 1.0] if axis == -1 else [1.0, -1.0])
        for shape in shapes:
            one, mask_one = clean([(shape, 2, place, 1)], jitter=shift.tolist())
            other, mask_other = clean([(shape, 2, mirrored, 1)], jitter=opposite.tolist())
            torch.testing.assert_close(one.flip(axis), other, atol=1e-5, rtol=0)
            assert torch.equal(mask_one.flip(axis), mask_other)
    # the standing triangle is wider below
    _, mask = clean([(2, 0, 0, 1)])
    rows = mask[0].sum(1)
    assert rows[2] < rows[6]


def test_pictures_are_counted():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    nine, four = WORLD.pictures(9), WORLD.pictures(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert nine.captions[:4] == four.captions
    for whole, part in zip(nine[1:], four[1:], strict=True):
        assert torch.equal(whole[:4], part)
    assert not torch.equal(nine.images_BCHW, get_world("picture", seed=1).pictures(9).images_BCHW)
    same = [nine.captions[0]] * 2
    assert not torch.equal(*draw(same, "a", 0).images_BCHW)
    assert not torch.equal(draw(same, "a", 0).images_BCHW, draw(same, "b", 0).images_BCHW)


def test_mismatch_replaces_attributes_at_its_rate():
    pictures = WORLD.pictures(4000, mismatch=0.5)
    wanted = torch.tensor([parse_caption(c) for c in pictures.captions])
    kept = (pictures.attributes_B4 == wanted).double().mean(0)
    expected = torch.tensor([0.5 + 0.5 / len(values) for values in ATTRIBUTES.values()]).double()
    assert (kept - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5
    assert torch.equal(
        WORLD.pictures(50).attributes_B4, torch.tensor([parse_caption(c) for c in WORLD.prompts(50)])
    )
    with pytest.raises(ValueError, match="mismatch is a share"):
        WORLD.pictures(3, mismatch=1.5)


# -- rewards -------------------------------------------------------------------------------------------------


def test_rewards_are_exact_on_pictures_of_their_captions():
    for split in ("train", "test"):
        pictures = WORLD.pictures(1000, split)
        rewards = WORLD.rewards(pictures.captions, pictures.images_BCHW)
        for name in ("match", "full", *ATTRIBUTES):
            assert rewards[name].eq(1).all(), name
        assert torch.equal(rewards["utility"], 4 + rewards["aesthetic"])


def test_match_counts_the_right_attributes():
    pictures = WORLD.pictures(1000, mismatch=0.5)
    wanted = torch.tensor([parse_caption(c) for c in pictures.captions])
    right = (pictures.attributes_B4 == wanted).float()
    rewards = WORLD.rewards(pictures.captions, pictures.images_BCHW)
    assert torch.equal(rewards["match"], right.mean(1))
    assert torch.equal(rewards["full"], right.prod(1))
    assert torch.equal(torch.stack([rewards[name] for name in ATTRIBUTES], 1), right)
    assert 0.5 < rewards["match"].mean() < 0.8
    k = 17
    assert WORLD.verify(pictures.captions[k], pictures.images_BCHW[k]) == pytest.approx(
        4 * right[k].mean().item() + aesthetic(pictures.images_BCHW[k : k + 1]).item(), abs=1e-5
    )


def slow_templates():
    attributes, pixels = [], []
    for saturation, jitter in itertools.product(TEMPLATE_SATURATIONS, TEMPLATE_JITTERS):
        attributes += EVERY
        pixels.append(clean(EVERY, saturation=saturation, jitter=jitter)[0].double())
    return torch.tensor(attributes), torch.cat(pixels)


def test_reading_and_soft_match_against_plain_loops():
    attributes_T4, pixels_T = slow_templates()
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    images[:3] = WORLD.pictures(3).images_BCHW
    wanted = torch.tensor(EVERY[40:46])
    soft = soft_match(wanted, images)
    for k, image in enumerate(images):
        distances = torch.tensor([((image - pixels) ** 2).sum() for pixels in pixels_T])
        assert read(images)[k].tolist() == attributes_T4[distances.argmin()].tolist()
        probabilities = torch.softmax(-distances, 0)
        expected = sum(probabilities[attributes_T4[:, a] == wanted[k, a]].sum().item() / 4 for a in range(4))
        assert soft[k].item() == pytest.approx(expected, abs=1e-6)


def test_aesthetic_against_plain_loops():
    image = WORLD.pictures(1).images_BCHW[0].double().numpy()
    chroma = sorted(
        (max(image[:, y, x]) - min(image[:, y, x]) for y in range(16) for x in range(16)), reverse=True
    )
    bends = sorted(
        abs(
            image[c, y - 1, x] + image[c, y + 1, x] + image[c, y, x - 1] + image[c, y, x + 1] - 4 * image[c, y, x]
        )
        for c in range(3)
        for y in range(1, 15)
        for x in range(1, 15)
    )  # fmt: skip
    lower_median = bends[(len(bends) - 1) // 2]
    expected = np.mean(chroma[:20]) - 2 * lower_median
    assert aesthetic(torch.tensor(image)[None]).item() == pytest.approx(expected, abs=1e-9)


def test_aesthetic_likes_saturation_and_hates_grain():
    looks = [(0.3, 0.0), (0.6, 0.0), (1.0, 0.0)]
    dull, mid, vivid = (aesthetic(clean(EVERY, saturation=s, grain=g)[0]) for s, g in looks)
    assert (dull < mid).all()
    assert (mid < vivid).all()
    assert (aesthetic(clean(EVERY, grain=0.08)[0]) < vivid - 0.1).all()


def test_soft_rewards_have_gradients_and_follow_the_exact_ones():
    pictures = WORLD.pictures(400, mismatch=0.5)
    images = pictures.images_BCHW.clone().requires_grad_()
    rewards = WORLD.rewards(pictures.captions, images)
    (rewards["soft_match"].sum() + rewards["aesthetic"].sum()).backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()
    wanted = torch.tensor([parse_caption(c) for c in pictures.captions])
    before = soft_match(wanted, images)
    [uphill] = torch.autograd.grad(before.sum(), images)
    assert soft_match(wanted, images + 0.3 * uphill).mean() > before.mean() + 0.002
    assert 0 <= rewards["soft_match"].min() <= rewards["soft_match"].max() <= 1
    joint = torch.corrcoef(torch.stack([rewards["soft_match"].detach(), rewards["match"]]))
    assert joint[0, 1] > 0.9


def test_a_thousand_pictures_are_judged_in_well_under_a_second():
    pictures = WORLD.pictures(1000)
    WORLD.rewards(pictures.captions, pictures.images_BCHW)
    before = time.process_time()
    WORLD.rewards(pictures.captions, pictures.images_BCHW)
    assert time.process_time() - before < 0.6


def test_what_is_no_picture_is_refused():
    [prompt] = WORLD.prompts(1)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\).*own size"):
        WORLD.verify(prompt, torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"given \(3, 16, 16\)"):
        WORLD.rewards([prompt], torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="given 2 prompts and 1 pictures"):
        WORLD.rewards([prompt, prompt], torch.zeros(1, 3, 16, 16))


def test_all_forms_of_a_picture_are_judged_alike(tmp_path):
    import io

    from PIL import Image

    pictures = WORLD.pictures(3)
    images = (pictures.images_BCHW * 255).round() / 255
    stored = [as_png(image) for image in images]
    opened = [Image.open(io.BytesIO(image["bytes"])) for image in stored]
    assert [(image.size, image.mode) for image in opened] == [((16, 16), "RGB")] * 3
    opened[0].save(tmp_path / "a.png")
    assert torch.equal(as_batch([{"bytes": None, "path": tmp_path / "a.png"}]), images[:1])
    for form in (stored, opened, list(images), (images * 255).round().byte()):
        torch.testing.assert_close(as_batch(form), images, atol=1e-7, rtol=0)
    # eight bits a channel hardly move a reward
    exact = WORLD.rewards(pictures.captions, pictures.images_BCHW)["utility"]
    assert (exact - WORLD.rewards(pictures.captions, stored)["utility"]).abs().max() < 0.02


# -- masks and edges -----------------------------------------------------------------------------------------


def test_the_mask_is_where_the_object_covers_the_ground():
    images, masks = clean(EVERY, saturation=0.7, jitter=(0.2, -0.4))
    attributes = torch.tensor(EVERY)
    pure = torch.tensor([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)]).float()
    colour = 0.7 * pure + 0.3 * pure.mean(1, keepdim=True)
    ground = torch.full((3,), GROUND)
    nearer = (images - colour[attributes[:, 1], :, None, None]).norm(dim=1) < (
        images - ground[:, None, None]
    ).norm(dim=1)
    assert torch.equal(masks, nearer)
    area = masks.flatten(1).sum(1)
    assert (area[attributes[:, 3] == 1] > 1.9 * area[attributes[:, 3] == 0]).all()
    centre = (masks[0].nonzero().double().mean(0) + 0.5).tolist()
    assert centre == pytest.approx([4.5 - 0.4, 4.5 + 0.2], abs=0.35)


def test_edges_are_the_outline():
    masks = WORLD.pictures(20).masks_BHW
    masks[0] = True  # also at the border of the picture
    edges = edges_of(masks)
    for mask, edge in zip(masks.tolist(), edges.tolist(), strict=True):
        for y, x in itertools.product(range(16), range(16)):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inner = all(0 <= v < 16 and 0 <= u < 16 and mask[v][u] for v, u in around)
            assert edge[y][x] == (mask[y][x] and not inner)
    pictures = WORLD.pictures(5)
    assert torch.equal(pictures.edges_BHW, edges_of(pictures.masks_BHW))


def test_segmentation_from_pixels():
    pictures = WORLD.pictures(500)
    clean_images, clean_masks = clean(EVERY)
    for images, true, least in (
        (pictures.images_BCHW, pictures.masks_BHW, 0.94),
        (clean_images, clean_masks, 0.97),
    ):
        found = segment(images)
        overlap = (found & true).flatten(1).sum(1) / (found | true).flatten(1).sum(1)
        assert overlap.mean() > least


# -- preference rows -----------------------------------------------------------------------------------------

N = 400


@pytest.fixture(scope="module")
def rows():
    return WORLD.comparisons(N)


def test_rows_hold_what_their_pictures_earn(rows):
    for side in ("chosen", "rejected"):
        rewards = WORLD.rewards([r["prompt"] for r in rows], [r[f"{side}_image"] for r in rows])
        assert rewards["utility"].tolist() == [r[f"score_{side}"] for r in rows]
        sign = 1 if side == "chosen" else -1
        for column, name in (
            ("aesthetic_gap", "aesthetic"),
            ("clip_gap", "match"),
            ("vqa_gap", "soft_match"),
        ):
            for k, row in enumerate(rows):
                row.setdefault(f"check_{column}", 0.0)
                row[f"check_{column}"] += sign * rewards[name][k].item()
    for row in rows:
        for column in ("aesthetic_gap", "clip_gap", "vqa_gap"):
            assert row[column] == pytest.approx(row.pop(f"check_{column}"), abs=1e-6)
    assert [r["prompt"] for r in rows] == WORLD.prompts(N)
    counts = Counter(r["prompt"] for r in rows)
    assert all(r["num_example_per_prompt"] == counts[r["prompt"]] for r in rows)
    assert len({r["id"] for r in rows}) == N


def test_near_equals_tie_and_others_win(rows):
    for row in rows:
        assert (row["label"] == "tie") == (abs(row["score_chosen"] - row["score_rejected"]) <= 0.15 + 1e-6)
    ties = Counter(r["label"] for r in rows)["tie"]
    assert 0.05 < ties / N < 0.2
    assert {r["label"] for r in WORLD.comparisons(N, tie_margin=0)} == {"win"}
    assert {r["label"] for r in WORLD.comparisons(50, tie_margin=9)} == {"tie"}
    # which of a tie's pictures is called chosen says nothing
    tied = [r for r in WORLD.comparisons(1000, tie_margin=0.3) if r["label"] == "tie"]
    share = np.mean([r["score_chosen"] > r["score_rejected"] for r in tied])
    assert share < 0.75


def test_the_annotator_errs_as_bradley_and_terry_say():
    """The better picture wins with probability sigmoid(2 gap); and she is not fond of the first or the second."""
    rows = [r for r in WORLD.comparisons(2000) if r["label"] == "win"]
    gaps = np.array([r["score_chosen"] - r["score_rejected"] for r in rows])
    right = gaps > 0
    chance = 1 / (1 + np.exp(-2 * np.abs(gaps)))
    for low, high in ((0.15, 0.6), (0.6, 1.2), (1.2, 9)):
        some = (np.abs(gaps) > low) & (np.abs(gaps) <= high)
        error = math.sqrt((chance[some] * (1 - chance[some])).sum()) / some.sum()
        assert abs(right[some].mean() - chance[some].mean()) < 4 * error + 1e-3
    sure = WORLD.comparisons(N, sharpness=math.inf)
    assert all(r["score_chosen"] > r["score_rejected"] for r in sure if r["label"] == "win")
    coin = np.mean([r["score_chosen"] > r["score_rejected"] for r in WORLD.comparisons(1000, sharpness=0)])
    assert 0.43 < coin < 0.57


def sides(row):
    return row["chosen_image"]["bytes"], row["rejected_image"]["bytes"]


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_label_noise_flips_its_share_of_the_wins_and_no_tie(rows, noise):
    noisy = WORLD.comparisons(N, label_noise=noise)
    wins = sum(r["label"] == "win" for r in rows)
    flipped = [k for k in range(N) if sides(rows[k]) != sides(noisy[k])]
    assert len(flipped) == round(noise * wins)
    for k in flipped:
        assert rows[k]["label"] == noisy[k]["label"] == "win"
        assert sides(rows[k]) == sides(noisy[k])[::-1]
        assert rows[k]["aesthetic_gap"] == -noisy[k]["aesthetic_gap"]
        assert rows[k]["score_chosen"] == noisy[k]["score_rejected"]
    more = WORLD.comparisons(N, label_noise=min(1.0, noise + 0.1))
    assert set(flipped) <= {k for k in range(N) if sides(rows[k]) != sides(more[k])}


def test_rows_are_seeded_and_their_pictures_do_not_depend_on_the_annotator(rows):
    assert WORLD.comparisons(N) == rows
    other = WORLD.comparisons(N, seed=1)
    assert other != rows
    assert [set(sides(r)) for r in other] == [set(sides(r)) for r in rows]
    assert [r["prompt"] for r in WORLD.comparisons(20, "test")] == WORLD.prompts(20, "test")
    assert sides(get_world("picture", seed=1).comparisons(1)[0]) != sides(rows[0])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="label_noise is a share"):
        WORLD.comparisons(3, label_noise=1.2)
    with pytest.raises(ValueError, match="tie_margin and sharpness"):
        WORLD.comparisons(3, tie_margin=-1)
    with pytest.raises(ValueError, match="renders or model"):
        WORLD.comparisons(3, candidates="real")
    with pytest.raises(TypeError, match="did you mean width"):
        get_world("picture", widht=16)
    with pytest.raises(ValueError, match="multiple of 8"):
        get_world("picture", width=12)
    with pytest.raises(ValueError, match="codec_steps must be at least 1"):
        get_world("picture", codec_steps=0)


def test_singles():
    rows = WORLD.singles(1000)
    assert [r["prompt"] for r in rows] == WORLD.prompts(1000)
    scores = WORLD.rewards([r["prompt"] for r in rows], [r["image"] for r in rows])["utility"]
    assert scores.tolist() == pytest.approx([r["score"] for r in rows], abs=1e-6)
    liked = np.array([r["label"] for r in rows])
    chance = 1 / (1 + np.exp(-2 * (scores.double().numpy() - 3)))
    assert 0.4 < liked.mean() < 0.6
    assert abs(liked.mean() - chance.mean()) < 4 * math.sqrt((chance * (1 - chance)).sum()) / 1000
    assert all(r["label"] == (r["score"] > 3) for r in WORLD.singles(100, sharpness=math.inf))
    noisy = WORLD.singles(1000, label_noise=0.25)
    assert sum(a["label"] != b["label"] for a, b in zip(rows, noisy, strict=True)) == 250


def test_datasets_takes_the_rows(rows):
    import datasets

    table = datasets.Dataset.from_list(rows[:3]).cast_column("chosen_image", datasets.Image())
    for row, stored in zip(rows, table, strict=False):
        assert WORLD.verify(row["prompt"], stored["chosen_image"]) == pytest.approx(row["score_chosen"])


def test_a_written_folder_is_an_image_folder(tmp_path, rows):
    import datasets

    folder = WORLD.write(tmp_path / "data", 6, seed=0)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [(folder / line["chosen_image_file_name"]).read_bytes() for line in lines] == [
        sides(row)[0] for row in WORLD.comparisons(6)
    ]
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 6
    for line, row in zip(lines, loaded, strict=True):
        assert row["prompt"] == line["prompt"]
        assert WORLD.verify(row["prompt"], row["rejected_image"]) == pytest.approx(line["score_rejected"])
