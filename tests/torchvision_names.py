"""Names for two operators of torchvision where its own cannot be loaded, so that `import torchvision` works.

timm needs torchvision, and where it is installed transformers imports it too. An index may hand out a torchvision that
was built for a CUDA PyTorch. Beside a CPU one its compiled extension does not load; torchvision puts up with that, but
then describes two operators of the extension to PyTorch, and `import torchvision` ends with "RuntimeError: operator
torchvision::nms does not exist". Nothing here ever calls them, so that it is enough that they have names.
"""

import importlib.machinery
import importlib.util
from functools import cache

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache  # which keeps the library alive: the names go when it does
def declare() -> torch.library.Library | None:
    """Give the operators names where torchvision is installed and they are missing; torchvision is not imported.

    The extension is tried first, as torchvision does: once loaded it stays, and it must not find its names taken.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or hasattr(torch.ops.torchvision, "nms"):
        return None
    extension = importlib.machinery.PathFinder.find_spec("_C", package.submodule_search_locations)
    try:
        if extension and extension.origin:
            torch.ops.load_library(extension.origin)
            return None
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    return library
