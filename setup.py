"""Packaging: everything it says comes from settings.ini, the one home of name, version and requirements."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = {name: settings[f"{name}_requirements"].split() for name in ("figures", "cluster", "docs", "dev")}


class CarryNotebooks(build_py):
    """A wheel carries the notebooks of figures, and the measurements that one of them draws, in `selmatch/notebooks`."""

    def carried(self):
        """Source -> its place in the wheel; a clone keeps them in one place, `nbs/figures` and `figures/bench`."""
        files = [*sorted((ROOT / "nbs" / "figures").glob("*.ipynb")), ROOT / "figures" / "bench" / "cpu.json"]
        return {file: Path(self.build_lib) / "selmatch" / "notebooks" / file.name for file in files}

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for source, place in self.carried().items():
            self.mkpath(str(place.parent))
            self.copy_file(str(source), str(place))

    def get_outputs(self, include_bytecode=1):
        carried = [] if self.editable_mode else [str(place) for place in self.carried().values()]
        return super().get_outputs(include_bytecode) + carried


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=["selmatch", "selmatch.*"]),
    package_data={"selmatch": ["profiles/*.yaml", "profiles/*.csv"]},
    cmdclass={"build_py": CarryNotebooks},
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": ["selmatch=selmatch._modidx:d"],
    },
)
