"""Small sets of images that teach like large ones.

`import selmatch as sm` loads nothing heavy. The names below do when they are first used:

    data = sm.from_folder("my/images")      # from_torch, from_huggingface, from_arrays
    small = sm.select(data, "window", ratio=0.1)
    sm.evaluate(small, data)
    small.save("small")
"""
import importlib
import types

__version__ = "0.1.0"

# name -> the room that it stands in
rooms = {
    **dict.fromkeys(["from_folder", "from_torch", "from_huggingface", "from_arrays", "score",
                     "evaluate", "load", "Data", "Small", "Question"], "api"),
    **dict.fromkeys(["compare", "read_set"], "others"),
    "shrink": "show.card",
    "Method": "methods",
    "InputError": "core",
}
verbs = ("select", "distill")       # rooms with many chapters, and functions of chapter 64


class Verb(types.ModuleType):
    """A package that can be called: `sm.select(data)` is `selmatch.api.select(data)`."""

    def __call__(self, *given, **words):
        from selmatch import api
        return getattr(api, self.__name__.rpartition(".")[2])(*given, **words)


def __getattr__(name: str):
    if name in verbs:
        return importlib.import_module(f"selmatch.{name}")
    if name in rooms:
        return getattr(importlib.import_module(f"selmatch.{rooms[name]}"), name)
    raise AttributeError(f"module 'selmatch' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *rooms, *verbs])
