# The environment of the built package, for bash and zsh:  . scripts/env.sh && pose_node
#
# Puts .venv's tools and the package's executables on PATH and sources install/, which sources the
# ROS 2 that it was built on. The ROS 2 wheels bring no `ros2` command: there, start an executable by
# its name (pose_node, sample_camera, demo).
# shellcheck shell=bash

_mppe_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"

# The wheels re-execute Python once, to set LD_LIBRARY_PATH, and leave this mark. A mark inherited from
# another environment's Python would keep ours from doing so.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE

if [ -e "$_mppe_root/.venv/share/rclpy/package.xml" ]; then  # ROS 2 from wheels
    export AMENT_PREFIX_PATH="$_mppe_root/.venv"
    export CMAKE_PREFIX_PATH="$_mppe_root/.venv"
fi

if [ -n "${ZSH_VERSION:-}" ]; then _mppe_shell=zsh; else _mppe_shell=bash; fi
if [ -e "$_mppe_root/install/setup.$_mppe_shell" ]; then
    # shellcheck disable=SC1090
    . "$_mppe_root/install/setup.$_mppe_shell"
else
    echo "env.sh: the package isn't built yet: run 'make setup'" >&2
fi

for _mppe_bin in "$_mppe_root/install/mppe_ros/lib/mppe_ros" "$_mppe_root/.venv/bin"; do
    case ":$PATH:" in
        *":$_mppe_bin:"*) ;;
        *) export PATH="$_mppe_bin:$PATH" ;;
    esac
done

unset _mppe_root _mppe_shell _mppe_bin
