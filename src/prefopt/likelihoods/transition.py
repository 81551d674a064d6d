"""The Gaussian density of one reverse step, x_t -> x_t', of a diffusion or flow model.

Any 0 <= std <= sigma' keeps the marginals of the process:

    mean = alpha' x0_hat + sqrt(sigma'^2 - std^2) eps_hat,    x_t' = mean + std z,  z ~ N(0, I)

with (alpha, sigma) at t and (alpha', sigma') at t', and x0_hat, eps_hat affine in the network's output. The mean is
therefore c_x x_t + c_out output, with coefficients from float64; at high noise this rounds half as much as going through
x0_hat, which is ten times larger than the mean.

Log-densities are MEANS over the elements of a sample, so that beta does not depend on resolution. They are float32 or
wider whatever comes in: typical log-ratios are 1e-4..1e-2 and beta is 500, while two bfloat16 log-densities differ by
0 or by multiples of about 2e-3.

Legend: B batch; CHW the axes of one sample, any number of them, D elements; ... candidates or nothing; S steps.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from prefopt.likelihoods.process import Process, check_shapes, combine, over_samples, wide

SigmaRule = Literal["ancestral", "substituted"]

SMALLEST_STD = 1e-4
"""Below it no density: 1 / std^2 multiplies the rounding error of the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class GaussianTransition:
    """N(mean, std^2 I) for each sample of a batch, one step of the reverse process.

    Example:
        >>> step = GaussianTransition(torch.zeros(2, 4, 8, 8), torch.tensor([0.6, 0.5]))
        >>> candidates = step.sample(torch.randn(3, 2, 4, 8, 8))  # three for each
        >>> step.log_prob(candidates).shape
        torch.Size([3, 2])
    """

    mean_BCHW: Tensor
    """Float32 or wider, with gradients to the network's output."""
    std_B: Tensor
    """(B,) float64 on the device of the timesteps; 0 for a deterministic step."""

    def sample(self, noise_BCHW: Tensor) -> Tensor:
        """mean + std noise. Noise with a leading axis of K, (K, B, C, H, W), gives K candidates."""
        self._check("noise", noise_BCHW)
        dtype = wide(self.mean_BCHW, noise_BCHW)
        return self.mean_BCHW.to(dtype) + over_samples(self.std_B, self.mean_BCHW) * noise_BCHW.to(dtype)

    def log_prob(self, y_BCHW: Tensor) -> Tensor:
        """(..., B) log-density of y, (..., B, C, H, W), divided by D: nats an element.

        Differences of it lose digits to cancellation; for policy against reference there is `log_ratio`.

        Raises:
            ValueError: a step is deterministic, or its std is below 1e-4.
        """
        self._check("y", y_BCHW)
        std_B = self._spread()
        dtype = wide(self.mean_BCHW, y_BCHW)
        z = (y_BCHW.to(dtype) - self.mean_BCHW.to(dtype)) / over_samples(std_B, self.mean_BCHW)
        constant_B = (std_B.log() + 0.5 * math.log(2 * math.pi)).to(z.device, dtype)
        return -0.5 * self._mean(z.square()) - constant_B

    def _check(self, name: str, value: Tensor) -> None:
        if value.shape[max(0, value.dim() - self.mean_BCHW.dim()) :] != self.mean_BCHW.shape:
            raise ValueError(
                f"{name} of shape {tuple(value.shape)} for a mean of {tuple(self.mean_BCHW.shape)}; needed that "
                "shape, or with leading axes of candidates"
            )

    def _spread(self) -> Tensor:
        """std_B, once checked to be that of a density."""
        smallest = float(self.std_B.min())
        if smallest >= SMALLEST_STD:
            return self.std_B
        if smallest == 0:
            raise ValueError(
                "a step has std 0 and therefore no density: either eta is 0 (deterministic sampling) or the step ends "
                "at the clean sample. Use eta > 0, and leave the last step out or end it at t_prev = 0"
            )
        raise ValueError(
            f"the smallest std of the steps is {smallest:.3g}; needed at least {SMALLEST_STD}, below which the density "
            "is rounding error. Use a larger eta or fewer inference steps, or leave the last step out"
        )

    def _mean(self, value: Tensor) -> Tensor:
        """Mean over the axes of a sample: (..., B, C, H, W) -> (..., B)."""
        return value.flatten(1 - self.mean_BCHW.dim()).mean(-1)


def log_ratio(policy: GaussianTransition, reference: GaussianTransition, y_BCHW: Tensor) -> Tensor:
    """(..., B) log policy(y) - log reference(y), mean over elements, in closed form.

    <mu - mu_ref, y - (mu + mu_ref)/2> / (std^2 D): the terms that cancel are never computed. Log-ratios of two
    samples from the same x_t differ by <mu - mu_ref, y_w - y_l> / (std^2 D).

    Args:
        policy, reference: the same step (same std) under two models.
        y_BCHW: (B, C, H, W) or (..., B, C, H, W), the samples x_t'; data, without gradient.

    Raises:
        ValueError: the steps differ, or have no density.

    Source: log-ratio of one step in "Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference
    Optimization" (arXiv 2502.01051), rearranged.

    Example:
        >>> std = torch.tensor([0.5])
        >>> policy, reference = (GaussianTransition(torch.full((1, 4), m), std) for m in (1.0, 0.0))
        >>> log_ratio(policy, reference, torch.full((1, 4), 0.5))
        tensor([0.])
    """
    std_B = _same_step(policy, reference)
    policy._check("y", y_BCHW)
    dtype = wide(policy.mean_BCHW, reference.mean_BCHW, y_BCHW)
    mu, mu_ref, y = policy.mean_BCHW.to(dtype), reference.mean_BCHW.to(dtype), y_BCHW.to(dtype)
    # products and a mean, not einsum: autocast would run that in bfloat16
    return policy._mean((mu - mu_ref) * (y - (mu + mu_ref) / 2) / over_samples(std_B.square(), mu))


def kl(policy: GaussianTransition, reference: GaussianTransition) -> Tensor:
    """(B,) KL(policy || reference) of one step divided by D, exact: |mu - mu_ref|^2 / (2 std^2 D) nats an element."""
    std_B = _same_step(policy, reference)
    dtype = wide(policy.mean_BCHW, reference.mean_BCHW)
    mu, mu_ref = policy.mean_BCHW.to(dtype), reference.mean_BCHW.to(dtype)
    return policy._mean((mu - mu_ref).square() / (2 * over_samples(std_B.square(), mu)))


def _same_step(policy: GaussianTransition, reference: GaussianTransition) -> Tensor:
    check_shapes(policy=policy.mean_BCHW, reference=reference.mean_BCHW)
    if not torch.equal(policy.std_B, reference.std_B):
        raise ValueError(
            f"policy and reference have different stds, {policy.std_B.tolist()} and {reference.std_B.tolist()}; "
            "needed the same t, t_prev and eta for both"
        )
    return policy._spread()


def guided(cond_BCHW: Tensor, uncond_BCHW: Tensor | None, w: float) -> Tensor:
    """Classifier-free guidance, uncond + w (cond - uncond), in float32 or wider.

    Gradients flow through both branches. It may be applied to any kind of output, the conversions being affine. At
    w = 1 it is the conditional output, and `uncond` may be None: one forward pass is saved.
    """
    if w == 1:
        return cond_BCHW.to(wide(cond_BCHW))
    if uncond_BCHW is None:
        raise ValueError(
            f"guidance {w} needs the network's output for the empty prompt too; given None "
            "(only w = 1 works without)"
        )
    check_shapes(cond=cond_BCHW, uncond=uncond_BCHW)
    dtype = wide(cond_BCHW, uncond_BCHW)
    cond, uncond = cond_BCHW.to(dtype), uncond_BCHW.to(dtype)
    return uncond + w * (cond - uncond)


def ddim_transition(
    process: Process, output_BCHW: Tensor, x_BCHW: Tensor, t: Tensor, t_prev: Tensor, eta: float
) -> GaussianTransition:
    """One reverse step of DDIM with noise eta (Song et al., ICLR 2021, equations 12 and 16); eta 1 is DDPM's.

    Args:
        process: of kind "vp".
        output_BCHW: the network's output at x_t, after guidance.
        x_BCHW: x_t.
        t: (B,) integer train timesteps.
        t_prev: (B,) less noisy timesteps. Below 0 is where the scheduler ends: at abar_0 with set_alpha_to_one=False
            (Stable Diffusion; the same as t_prev = 0), else at the clean sample, where no density exists. The
            released LPO and SPO always end at 0: `t_prev.clamp(min=0)`.
        eta: noise in [0, 1]; 0 is deterministic: `sample` works, densities raise.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
        >>> process, (t, t_prev) = Process.from_scheduler(scheduler), inference_timesteps(scheduler, 20)[:1].T
        >>> x = torch.randn(1, 4, 8, 8)
        >>> ddim_transition(process, torch.zeros_like(x), x, t, t_prev, eta=1.0).std_B.shape
        torch.Size([1])
    """
    if process.kind != "vp":
        raise ValueError(
            "ddim_transition is for diffusion processes; given a flow process, use flow_transition"
        )
    return _transition(process, output_BCHW, x_BCHW, t, t_prev.clamp(min=-1), eta, "ancestral")


def flow_transition(
    process: Process,
    output_BCHW: Tensor,
    x_BCHW: Tensor,
    sigma_t: Tensor,
    sigma_prev: Tensor,
    eta: float,
    rule: SigmaRule = "ancestral",
) -> GaussianTransition:
    """One reverse step of a flow model made stochastic; eta 0 is the Euler step of its ODE.

    Args:
        process: of kind "flow".
        output_BCHW: the network's velocity at x_t, after guidance.
        x_BCHW: x_t.
        sigma_t, sigma_prev: (B,) floating noise levels, sigma_prev < sigma_t. The step to sigma 0 has no density.
        eta: noise in [0, 1].
        rule: std for eta. "ancestral": eta (sigma'/sigma) sqrt(sigma^2 - (alpha/alpha')^2 sigma'^2), never above
            sigma' and equal to DDIM's on a diffusion process. "substituted": DDIM's formula with (1 - sigma, sigma)
            put in for (sqrt(abar), sqrt(1 - abar)), as LPO's paper has it; at low noise it exceeds sigma', where
            we cut it.
    """
    if process.kind != "flow":
        raise ValueError(
            "flow_transition is for flow processes; given a diffusion process, use ddim_transition"
        )
    if rule not in get_args(SigmaRule):
        raise ValueError(f"no rule {rule!r} for the std; there are {', '.join(get_args(SigmaRule))}")
    return _transition(process, output_BCHW, x_BCHW, sigma_t, sigma_prev, eta, rule)


def _transition(
    process: Process, output: Tensor, x: Tensor, t: Tensor, t_prev: Tensor, eta: float, rule: SigmaRule
) -> GaussianTransition:
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1] (0 deterministic, 1 ancestral); given {eta}")
    if t.device.type == "cpu" and not bool((t_prev.to(t.device) < t).all()):
        raise ValueError(f"a step must go to less noise; given from {t.tolist()} to {t_prev.tolist()}")
    check_shapes(output=output, x_t=x)
    alpha_B, sigma_B = process.alpha(t), process.sigma(t)
    alpha_prev_B, sigma_prev_B = process.alpha(t_prev), process.sigma(t_prev)
    shrink_B = alpha_B / alpha_prev_B
    if rule == "ancestral":
        lost_B = sigma_B.square() - (shrink_B * sigma_prev_B).square()
    else:
        lost_B = 1 - shrink_B.square()
    std_B = eta * sigma_prev_B / sigma_B * lost_B.clamp(min=0).sqrt()
    std_B = torch.minimum(std_B, sigma_prev_B)
    along_B = (sigma_prev_B.square() - std_B.square()).clamp(min=0).sqrt()  # rounding can leave it below 0
    by = process.linear_map(t)
    mean_BCHW = combine(
        alpha_prev_B * by.x0_x + along_B * by.eps_x,
        x,
        alpha_prev_B * by.x0_out + along_B * by.eps_out,
        output,
    )
    return GaussianTransition(mean_BCHW, std_B)


def inference_timesteps(scheduler: Any, n_steps: int) -> Tensor:
    """(S, 2) steps of a reverse process in order, column 0 where a step starts and column 1 where it ends.

    For a diffusion scheduler int64 train timesteps, spaced as its configuration says; with Stable Diffusion's and 20
    steps (951, 901), ..., (51, 1), (1, 0). A step ends where the next one starts, also where an uneven spacing
    makes `DDIMScheduler.step` take another. The last ends at max(t - T/S, 0) if the scheduler ends at abar_0
    (set_alpha_to_one=False), else at -1, the clean sample. For a flow scheduler float64 noise levels, the last 0.

    Raises:
        ValueError: the scheduler's step is not one Gaussian given x_t, or its mean is clipped.
    """
    check_gaussian_steps(scheduler)
    if not 1 <= n_steps <= scheduler.config.num_train_timesteps:
        raise ValueError(
            f"needed between 1 and {scheduler.config.num_train_timesteps} steps; given {n_steps}"
        )
    process = Process.from_scheduler(scheduler)
    scheduler = copy.deepcopy(scheduler)  # set_timesteps would change the caller's
    scheduler.set_timesteps(n_steps)
    if process.kind == "flow":
        sigmas = scheduler.sigmas.to("cpu", torch.float64)
        return torch.stack([sigmas[:-1], sigmas[1:]], dim=1)
    starts = scheduler.timesteps.to("cpu", torch.int64)
    if process.sigma_table[0] == process.sigma_table[1]:
        last = (starts[-1:] - process.n_train_timesteps // n_steps).clamp(min=0 if starts[-1] > 0 else -1)
    else:
        last = torch.tensor([-1])
    return torch.stack([starts, torch.cat([starts[1:], last])], dim=1)


def stochastic(scheduler: Any) -> Any:
    """A scheduler of Gaussian steps on the same process: DDIM in place of the solvers that checkpoints ship with.

    Its last step ends at the first train timestep, as Stable Diffusion's own settings have it, so that it has a
    density.
    """
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    if isinstance(scheduler, DDIMScheduler | FlowMatchEulerDiscreteScheduler):
        return scheduler
    return DDIMScheduler.from_config(
        scheduler.config, clip_sample=False, set_alpha_to_one=False, thresholding=False
    )


def check_gaussian_steps(scheduler: Any) -> None:
    """Raise unless the steps of this scheduler are the Gaussian ones of this module."""
    name, config = type(scheduler).__name__, scheduler.config
    if name == "FlowMatchEulerDiscreteScheduler":
        if config.use_dynamic_shifting:
            raise ValueError(
                "the scheduler has use_dynamic_shifting=True: its noise levels depend on the resolution; needed fixed "
                "ones. Use FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, use_dynamic_shifting=False, "
                "shift=...) with the shift of your resolution"
            )
        return
    if name not in ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"):
        raise ValueError(
            f"{name} has no explicit Gaussian density for one step: multi-step solvers use earlier outputs, and others "
            "add noise in their own way. Use DDIMScheduler.from_config(scheduler.config) for a diffusion model, "
            "FlowMatchEulerDiscreteScheduler.from_config(scheduler.config) for a flow model"
        )
    for option in ("clip_sample", "thresholding"):
        if config.get(option, False):
            raise ValueError(
                f"the scheduler has {option}=True: predicted samples are clipped, the mean is no longer the network's "
                "and clipped elements have no gradient. Latent diffusion does not clip: use "
                f"{name}.from_config(scheduler.config, {option}=False)"
            )
    if config.get("variance_type", "fixed_small") != "fixed_small":
        raise ValueError(
            f"the scheduler has variance_type={config.variance_type!r}; needed fixed_small, which is eta = 1 here. Use "
            "DDIMScheduler.from_config(scheduler.config)"
        )
