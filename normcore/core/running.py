"""Running averages: what a method remembers of the batches it has seen. Nothing is changed in place."""

from collections.abc import Mapping

from torch import Tensor

from normcore.core.region import Bound
from normcore.core.statistics import Statistics, affine, along_channels, widen

State = Mapping[str, Tensor]


def track(state: State, region: Bound, stats: Statistics, momentum: float | None, pooled: bool = False) -> State:
    """The state after more batches: ``running = (1 - momentum) * running + momentum * new``, for each batch in turn.

    The regions are one a channel, or one a channel for each of several batches (or samples), those first; `pooled`
    averages them into a single step. A variance counts with the n - 1 estimator, as in PyTorch (TensorFlow, Keras and
    the ONNX operator use n). With momentum None every batch counts the same: ``momentum = 1 / batches seen``.
    """
    mean, var, seen = state["running_mean"], state["running_var"], state["num_batches_tracked"]
    unbiased = (
        stats["var_unbiased"] if "var_unbiased" in stats else stats["var"] * (region.size / (region.size - 1 or 1))
    )
    news = (region.gather(s).detach().to(mean.dtype).reshape(-1, len(mean)) for s in (stats["mean"], unbiased))
    rows = (new.mean(0, keepdim=True) if pooled else new for new in news)
    for new_mean, new_var in zip(*(row.unbind(0) for row in rows), strict=True):
        seen = seen + 1
        share = seen.to(mean.dtype).reciprocal() if momentum is None else momentum
        mean, var = (1 - share) * mean + share * new_mean, (1 - share) * var + share * new_var
    return {"running_mean": mean, "running_var": var, "num_batches_tracked": seen}


def apply_running(
    x: Tensor, region: Bound, state: State, eps: float, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Statistics]:
    """Evaluation: ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``, one fixed line for each channel."""
    wide = widen(x)
    mean, var = (along_channels(state[name].to(wide.dtype), region) for name in ("running_mean", "running_var"))
    y = affine((wide - mean) * (var + eps).rsqrt(), region, weight, bias)
    return y.to(x.dtype), {"running_mean": mean, "running_var": var}
