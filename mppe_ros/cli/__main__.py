"""``python -m mppe_ros.cli``: the ``mppe`` command where a module is asked for, as by torchrun."""

from . import main

main(prog_name="mppe")
