"""Published numbers can be looked at without what computes."""
import subprocess
import sys

from conftest import ROOT


def test_published_numbers_need_no_torch():
    code = "import sys, selmatch.show.published; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
