"""The learner's checks, `pp.check.…`: a file for each notebook, its number in front."""
from importlib import import_module
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("n[0-9]*.py")):
    module = import_module(f"{__name__}.{path.stem}")
    globals().update({name: getattr(module, name) for name in module.__all__})
