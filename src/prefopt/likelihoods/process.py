"""The forward noising process of a diffusion or flow model, as its diffusers scheduler describes it.

Every process here is x_t = alpha(t) x_0 + sigma(t) noise; kinds differ in the table of (alpha, sigma), and models in
what the network is trained to output. Given x_t, output, noise and x_0 are affine in each other, so one table of
coefficients (`linear_map`) serves targets, conversions, weights and reverse steps alike.

Coefficients are computed in float64, tensors in float32 or wider whatever comes in. Timesteps are best kept on the
CPU: then no check waits for the accelerator.

Legend: B batch; CHW the axes of one sample, any number of them; T train timesteps, t in 0..T-1 with noise growing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

Kind = Literal["vp", "flow"]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
WeightRule = Literal["constant", "snr", "min_snr"]
TimeDensity = Literal["uniform", "logit_normal"]


class LinearMap(NamedTuple):
    """x_0 = x0_x x_t + x0_out output and epsilon = eps_x x_t + eps_out output, each (B,) float64."""

    x0_x: Tensor
    x0_out: Tensor
    eps_x: Tensor
    eps_out: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """Noising process and parametrization of one model. Built by `Process.from_scheduler`.

    Wherever a method takes `t`, it is (B,) integer train timesteps; for kind "flow" also (B,) floating noise levels
    sigma in [0, 1], because inference visits levels between the train timesteps.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> process = Process.from_scheduler(DDIMScheduler(beta_schedule="scaled_linear"))
        >>> uniform, noise = counted_noise(seed=0, example_id="row-17", epoch=0, shape=(4, 8, 8))
        >>> t = process.timesteps(torch.tensor([uniform]))
        >>> x_t = process.add_noise(torch.zeros(1, 4, 8, 8), noise[None], t)
        >>> process.target(torch.zeros(1, 4, 8, 8), noise[None], t).shape
        torch.Size([1, 4, 8, 8])
    """

    kind: Kind
    """"vp": variance preserving, alpha^2 + sigma^2 = 1. "flow": straight lines, alpha = 1 - sigma."""
    prediction: Prediction
    """What the network outputs: noise, velocity alpha noise - sigma x_0, x_0, or flow velocity noise - x_0."""
    alpha_table: Tensor
    """(T + 1,) float64 on the CPU: entry t + 1 belongs to timestep t, entry 0 to the end of the reverse process."""
    sigma_table: Tensor
    """(T + 1,) likewise."""

    @classmethod
    def from_scheduler(cls, scheduler: Any) -> Process:
        """The process that a model with this scheduler was trained on.

        Any scheduler with a table `alphas_cumprod` will do, multi-step solvers too: the solver plays no part in the
        forward process. Of flow schedulers, `FlowMatchEulerDiscreteScheduler`; its `shift` is applied to the train
        table. With `use_dynamic_shifting` the table is unshifted, as in the scheduler itself. Calls of
        `set_timesteps` and `set_shift` before or after make no difference.

        Raises:
            ValueError: the scheduler describes another kind of process, or noise that its prediction cannot undo.
        """
        config = scheduler.config
        if hasattr(scheduler, "alphas_cumprod"):
            return cls._variance_preserving(scheduler)
        if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
            raise ValueError(
                f"{type(scheduler).__name__} has no alphas_cumprod and is not FlowMatchEulerDiscreteScheduler; needed "
                "one of the two. For a diffusion model use DDIMScheduler.from_config(scheduler.config), for a flow "
                "model FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)"
            )
        if config.invert_sigmas:
            raise ValueError(
                "the scheduler has invert_sigmas=True, time running from data to noise; needed a flow model whose "
                "sigma is its share of noise (invert_sigmas=False)"
            )
        levels = int(config.num_train_timesteps)
        time_T1 = torch.arange(levels + 1, dtype=torch.float64) / levels
        # the constructor's shift, not scheduler.shift: set_shift changes inference only
        shift = 1.0 if config.use_dynamic_shifting else float(config.shift)
        sigma_T1 = shift * time_T1 / (1 + (shift - 1) * time_T1)
        return cls(kind="flow", prediction="flow", alpha_table=1 - sigma_T1, sigma_table=sigma_T1)

    @classmethod
    def _variance_preserving(cls, scheduler: Any) -> Process:
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"prediction_type is {prediction!r}; needed epsilon, v_prediction or sample. For a flow model use "
                "FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)"
            )
        abar_T = torch.as_tensor(scheduler.alphas_cumprod).detach().to("cpu", torch.float64)
        if not bool(((abar_T >= 0) & (abar_T < 1)).all()) or bool((abar_T.diff() > 0).any()):
            raise ValueError(
                f"alphas_cumprod runs from {abar_T[0]:.6g} to {abar_T[-1]:.6g}, smallest {abar_T.min():.6g}, largest "
                f"{abar_T.max():.6g}; needed values in [0, 1) that never rise. Check beta_start, beta_end, trained_betas"
            )
        if prediction == "epsilon" and abar_T[-1] == 0:
            raise ValueError(
                "the last timesteps are pure noise (rescale_betas_zero_snr=True), from which an epsilon prediction "
                "says nothing about x_0; needed prediction_type v_prediction or sample, or rescale_betas_zero_snr=False"
            )
        final = getattr(scheduler, "final_alpha_cumprod", None)
        if final is None:  # the training schedulers have no such table but keep the checkpoint's option
            final = 1.0 if scheduler.config.get("set_alpha_to_one", True) else abar_T[0]
        abar_T1 = torch.cat([torch.as_tensor(final, dtype=torch.float64, device="cpu").reshape(1), abar_T])
        return cls("vp", prediction, alpha_table=abar_T1.sqrt(), sigma_table=(1 - abar_T1).sqrt())

    @property
    def n_train_timesteps(self) -> int:
        """T, the number of train timesteps."""
        return len(self.sigma_table) - 1

    def settings(self) -> dict[str, str]:
        """What names the process in a cache's key: kind, prediction, digest of the tables."""
        tables = torch.stack([self.alpha_table, self.sigma_table]).numpy().tobytes()
        digest = blake2b(tables, digest_size=16).hexdigest()
        return {"kind": self.kind, "prediction": self.prediction, "noise": digest}

    def alpha(self, t: Tensor) -> Tensor:
        """(B,) float64 coefficient of the signal, sqrt(abar_t) for "vp"; at t = -1 where the reverse process ends."""
        return self._look_up(self.alpha_table, t) if not t.is_floating_point() else 1 - self.sigma(t)

    def sigma(self, t: Tensor) -> Tensor:
        """(B,) float64 coefficient of the noise, sqrt(1 - abar_t) for "vp"; at t = -1 where the reverse process ends.

        Spread over a batch of samples by `over_samples(process.sigma(t), x)`.
        """
        if not t.is_floating_point():
            return self._look_up(self.sigma_table, t)
        if self.kind != "flow":
            raise ValueError(
                f"timesteps of a diffusion process are integers in 0..{self.n_train_timesteps - 1}; "
                f"given {t.dtype}"
            )
        if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(
                f"noise levels sigma lie in [0, 1]; given {t.tolist()}. The network's timestep "
                f"is sigma * {self.n_train_timesteps}: divide by it"
            )
        return t.to(torch.float32 if t.device.type == "mps" else torch.float64)

    def _look_up(self, table_T1: Tensor, t: Tensor) -> Tensor:
        if t.device.type == "mps":  # has no float64
            t = t.cpu()
        # not checked on an accelerator, where it would wait; indexing there traps what is too large by itself
        if t.device.type == "cpu" and not bool(((t >= -1) & (t < self.n_train_timesteps)).all()):
            raise ValueError(
                f"timesteps lie in 0..{self.n_train_timesteps - 1} (-1: end of the reverse process); "
                f"given {t.tolist()}"
            )
        return table_T1.to(t.device)[t + 1]

    def linear_map(self, t: Tensor) -> LinearMap:
        """Coefficients that turn (x_t, output) to x_0 and to noise: (B,) float64 each."""
        if t.device.type == "cpu" and bool((t < 0).any()):
            raise ValueError(
                f"the network sees timesteps 0..{self.n_train_timesteps - 1}; given {t.tolist()}"
            )
        alpha_B, sigma_B = self.alpha(t), self.sigma(t)
        zero_B, one_B = torch.zeros_like(alpha_B), torch.ones_like(alpha_B)
        if self.prediction == "epsilon":
            return LinearMap(1 / alpha_B, -sigma_B / alpha_B, zero_B, one_B)
        if self.prediction == "sample":
            return LinearMap(zero_B, one_B, 1 / sigma_B, -alpha_B / sigma_B)
        if self.prediction == "v_prediction":
            return LinearMap(alpha_B, -sigma_B, sigma_B, alpha_B)
        return LinearMap(one_B, -sigma_B, one_B, alpha_B)

    def add_noise(self, x0_BCHW: Tensor, noise_BCHW: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha(t) x_0 + sigma(t) noise, float32 or wider."""
        check_shapes(x0=x0_BCHW, noise=noise_BCHW)
        return combine(self.alpha(t), x0_BCHW, self.sigma(t), noise_BCHW)

    def target(self, x0_BCHW: Tensor, noise_BCHW: Tensor, t: Tensor) -> Tensor:
        """What the network should output at x_t = add_noise(x_0, noise, t), float32 or wider."""
        check_shapes(x0=x0_BCHW, noise=noise_BCHW)
        dtype = wide(x0_BCHW, noise_BCHW)
        if self.prediction == "epsilon":
            return noise_BCHW.to(dtype)
        if self.prediction == "sample":
            return x0_BCHW.to(dtype)
        if self.prediction == "v_prediction":
            return combine(self.alpha(t), noise_BCHW, -self.sigma(t), x0_BCHW)
        return noise_BCHW.to(dtype) - x0_BCHW.to(dtype)

    def x0(self, output_BCHW: Tensor, x_BCHW: Tensor, t: Tensor) -> Tensor:
        """The clean sample that an output at x_t implies, float32 or wider."""
        check_shapes(output=output_BCHW, x_t=x_BCHW)
        by = self.linear_map(t)
        return combine(by.x0_x, x_BCHW, by.x0_out, output_BCHW)

    def epsilon(self, output_BCHW: Tensor, x_BCHW: Tensor, t: Tensor) -> Tensor:
        """The noise that an output at x_t implies, float32 or wider."""
        check_shapes(output=output_BCHW, x_t=x_BCHW)
        by = self.linear_map(t)
        return combine(by.eps_x, x_BCHW, by.eps_out, output_BCHW)

    def model_timestep(self, t: Tensor) -> Tensor:
        """(B,) what the network's timestep argument is: t itself for "vp", T sigma(t) in float32 for "flow"."""
        return t if self.kind == "vp" else (self.n_train_timesteps * self.sigma(t)).float()

    def weight(self, t: Tensor, rule: WeightRule = "constant", gamma: float = 5.0) -> Tensor:
        """(B,) float32 weights of the squared error of the network's output.

        "constant" is 1. The others are stated on an error that does not depend on the parametrization:
        "snr" makes it the squared error of the noise (= SNR times that of x_0, SNR = alpha^2 / sigma^2),
        "min_snr" makes it min(SNR, gamma) times the squared error of x_0 (Hang et al., "Efficient Diffusion
        Training via Min-SNR Weighting Strategy", ICCV 2023), i.e. min(SNR, gamma)/SNR on an epsilon prediction
        and min(SNR, gamma)/(SNR + 1) on a v-prediction.
        """
        if rule not in get_args(WeightRule):
            raise ValueError(f"no time weight {rule!r}; there are {', '.join(get_args(WeightRule))}")
        if rule == "constant":
            return torch.ones(t.shape, device=t.device)
        by = self.linear_map(t)
        if rule == "snr":
            return by.eps_out.square().float()
        if gamma <= 0:
            raise ValueError(f"gamma of the min_snr weight must be above 0; given {gamma}")
        snr_B = (self.alpha(t) / self.sigma(t)).square()
        return (snr_B.clamp(max=gamma) * by.x0_out.square()).float()

    def timesteps(self, uniform_B: Tensor, density: TimeDensity = "uniform") -> Tensor:
        """(B,) int64 train timesteps from numbers in [0, 1).

        Args:
            uniform_B: (B,) uniform draws, as `counted_noise` gives them.
            density: "uniform", or "logit_normal" with mean 0 and scale 1, which favours the middle: the sampling
                of Stable Diffusion 3 (Esser et al., ICML 2024, section 3.1); time before `shift`.
        """
        if density not in get_args(TimeDensity):
            raise ValueError(
                f"no density of timesteps {density!r}; there are {', '.join(get_args(TimeDensity))}"
            )
        u_B = uniform_B.to(torch.float64)
        if not bool(((u_B >= 0) & (u_B < 1)).all()):
            raise ValueError(f"draws must lie in [0, 1); given {uniform_B.tolist()}")
        if density == "logit_normal":
            u_B = torch.special.ndtri(u_B).sigmoid()
        return (u_B * self.n_train_timesteps).long().clamp(max=self.n_train_timesteps - 1)


def counted_noise(seed: int, example_id: str, epoch: int, shape: Sequence[int]) -> tuple[float, Tensor]:
    """A uniform number in [0, 1) and standard normal noise that depend on nothing but the arguments.

    Neither batch, order, worker nor device play a part, so that a run can be resumed and a reference's scores
    cached. Items that must share noise (the two images of a pair) pass the same `example_id`.

    Args:
        seed: the run's seed.
        example_id: names the example within the data.
        epoch: pass over the data; each has fresh noise.
        shape: of the noise.

    Returns:
        (uniform, noise): uniform does not depend on `shape`; noise is float32 on the CPU. Less of the first axis is the
        beginning of the same noise.

    Example:
        >>> uniform, noise = counted_noise(seed=0, example_id="row-17", epoch=0, shape=(4, 8, 8))
        >>> torch.equal(noise, counted_noise(0, "row-17", 0, (4, 8, 8))[1])
        True
    """
    # seed and epoch first: they hold no slash, so that no two triples spell the same text
    digest = blake2b(f"{seed:d}/{epoch:d}/{example_id}".encode(), digest_size=16).digest()
    generator = _philox(digest)
    uniform = float(generator.random())
    return uniform, torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


class _Philox(threading.local):
    """One generator a thread, set to a key each time: a new one would ask the system for entropy that nothing uses."""

    def __init__(self) -> None:
        # numpy's Philox takes all 128 bits of a key. torch's CPU generator keeps 32 bits of a seed: among 100,000 examples
        # some would share their noise.
        self.bits = np.random.Philox(key=0)
        self.state: Any = self.bits.state  # at its beginning
        self.generator = np.random.Generator(self.bits)

    def __call__(self, key: bytes) -> np.random.Generator:
        self.state["state"]["key"] = np.frombuffer(key, dtype="<u8").astype(np.uint64)
        self.bits.state = self.state
        return self.generator


_philox = _Philox()


def wide(*tensors: Tensor) -> torch.dtype:
    """The common dtype, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def over_samples(value_B: Tensor, x_BCHW: Tensor) -> Tensor:
    """(B,) values as (B, 1, ..., 1), on x's device, in x's dtype or float32 where that is narrower."""
    if value_B.shape != x_BCHW.shape[:1]:
        raise ValueError(
            f"{tuple(value_B.shape)} values (timesteps) for samples of shape {tuple(x_BCHW.shape)}; "
            "needed one for each sample, shape (B,)"
        )
    return value_B.to(wide(x_BCHW)).to(x_BCHW.device).reshape(-1, *[1] * (x_BCHW.dim() - 1))


def combine(a_B: Tensor, x_BCHW: Tensor, b_B: Tensor, y_BCHW: Tensor) -> Tensor:
    """a x + b y in float32 or wider."""
    dtype = wide(x_BCHW, y_BCHW)
    x_BCHW, y_BCHW = x_BCHW.to(dtype), y_BCHW.to(dtype)
    return over_samples(a_B, x_BCHW) * x_BCHW + over_samples(b_B, y_BCHW) * y_BCHW


def check_shapes(**tensors: Tensor) -> None:
    """Raise unless all shapes are the same: broadcasting would hide a mistake."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        given = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes differ: {given}; needed the same shape")
