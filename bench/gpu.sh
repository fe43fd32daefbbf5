#!/usr/bin/env bash
# Build, test and measure on a GPU machine without a network, in under nine minutes:
#
#     bench/gpu.sh [--dry-run] [JOB ...]
#
# Needs python3 with torch, triton, pybind11, setuptools and pytest, and a C++ compiler; JAX and
# matplotlib are used where they are. Writes gpu.csv (a row as soon as it is measured), gpu.log and
# plots into $OUT (default bench/results). --dry-run takes tiny sizes through every stage on the CPU
# and leaves nothing behind but what $OUT names. PYTHON names the interpreter, VAEFAST_COMMIT what is
# measured where there is no checkout. The status is 1 where a stage failed.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${PYTHON:-python3}") || { echo "no ${PYTHON:-python3}" >&2; exit 2; }
dry=()
if [ "${1:-}" = --dry-run ]; then dry=(--dry-run); shift; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ${#dry[@]} -gt 0 ]; then
    name=dry_run out=${OUT:-$work/results}
    export TRITON_INTERPRET=1 VAEFAST_TEST_DEVICE=cpu
else
    name=gpu out=${OUT:-$root/bench/results}
    unset TRITON_INTERPRET
    export VAEFAST_TEST_DEVICE=cuda
fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
csv=$out/$name.csv log=$out/$name.log
: >"$log"
commit=$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)
VAEFAST_COMMIT=${VAEFAST_COMMIT:-$commit} # a copy that is no checkout is told its own
export VAEFAST_COMMIT VAEFAST_STRICT_BUILD=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=$work/site XLA_PYTHON_CLIENT_PREALLOCATE=false
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton

in_all=${IN_ALL:-525} # seconds
weights=525 # of the stages to come: their seconds, if each took its share
failed=0
processes=$(($(nproc) > 3 ? $(nproc) - 2 : 2))

# stage TITLE WEIGHT COMMAND...: at most the stage's share of the time left, less 10 s for @LEFT@
stage() {
    local title=$1 weight=$2 from=$SECONDS most status=ok
    shift 2
    most=$(((in_all - SECONDS) * weight / weights))
    weights=$((weights - weight))
    printf '\n== %s, at most %d s\n' "$title" "$most" | tee -a "$log"
    # into a file: a process left behind would hold a pipe open. From elsewhere: vaefast/ would shadow
    (cd "$work" && exec timeout -s INT -k 5 "$((most > 1 ? most : 1))" \
        "${@//@LEFT@/$((most - 10))}") >"$work/stage" 2>&1 </dev/null
    case $? in
        0) ;;
        124 | 137) status="stopped after $most s" ;;
        *) status="FAILED" ;;
    esac
    cat "$work/stage" >>"$log"
    tail -n 15 "$work/stage"
    [ "$status" = ok ] || failed=$((failed + 1))
    printf '  %-28s %4d s  %s\n' "$title" $((SECONDS - from)) "$status" >>"$work/stages"
    [ "$status" = ok ]
}

has() { "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

# The package as an install lays it out, but without pip and without writing to the interpreter's.
lay_out() {
    mkdir -p "$work/site/vaefast"
    ln -sfn "$root"/vaefast/* "$work/site/vaefast/"
    ln -sfn "$root/kernels/gpu" "$work/site/vaefast/kernels"
    ln -sfn "$root/bench" "$work/site/vaefast/bench"
    (cd "$root" && "$python" -W ignore setup.py -q egg_info -e "$work/site") >>"$log" 2>&1 ||
        echo "no version of vaefast in the rows: setup.py egg_info failed" | tee -a "$log"
}

{
    "$python" --version
    command -v nvidia-smi && nvidia-smi
    "${CXX:-c++}" --version | head -n 1
} >>"$log" 2>&1

if [ ${#dry[@]} -gt 0 ] && compgen -G "$root/vaefast/_C.*.so" >/dev/null; then
    build=("$python" -c 'print("the extension is there")')
else
    build=(env -C "$root" "$python" setup.py -q build_ext --inplace)
fi
if stage build 95 "${build[@]}"; then backends=cpp,triton; else backends=triton; fi
lay_out

pytest=(env VAEFAST_REQUIRE="$backends" "$python" -m pytest -q -rfE --tb=short)
pytest+=(-p no:cacheprovider -c "$root/pyproject.toml" --continue-on-collection-errors)
has pytest_benchmark || pytest+=(-o "addopts=--import-mode=importlib --strict-markers -m 'not proof and not binaries'")
apart=()
if has xdist; then apart=(-n "$processes"); fi
stage "tests of the GPU" 30 "${pytest[@]}" "${apart[@]}" "$root/tests/gpu"
# Most of an op test's time compiles kernels, on one core. Without xdist a process for each file; a
# file without such tests (5) is no failure.
files=("$root"/tests/ops/test_*.py)
pytest+=(--backend triton)
if [ ${#dry[@]} -gt 0 ]; then
    files=("$root"/tests/ops/test_{pgd_step,signals}.py)
    pytest+=(-k zero_radius)
fi
op_tests=("${pytest[@]}" "${apart[@]}" "${files[@]}")
if [ ${#apart[@]} -eq 0 ]; then
    printf '%s\n' "${files[@]}" >"$work/files"
    op_tests=(xargs -a "$work/files" -d '\n' -n 1 -P "$processes")
    op_tests+=(bash -c '"$@" || [ $? = 5 ]' pytest "${pytest[@]}")
fi
stage "tests of the ops" 75 "${op_tests[@]}"

place=(--device cuda)
[ ${#dry[@]} -gt 0 ] && place=("${dry[@]}")
bench=("$python" -m vaefast.bench "${place[@]}" --seconds @LEFT@)
stage "compiling" 50 "${bench[@]}" --warm --processes "$processes" "$@"
measure=("${bench[@]}" --out "$csv")
[ ${#dry[@]} -gt 0 ] && measure+=(--rounds 1)
if [ $# -gt 0 ]; then
    stage "$*" 265 "${measure[@]}" "$@"
else
    stage pgd_step 25 "${measure[@]}" pgd_step
    stage net_chain 65 "${measure[@]}" net_chain
    stage net_jacobian_gram 35 "${measure[@]}" net_jacobian_gram
    stage decode_distance 35 "${measure[@]}" decode_distance
    stage convolutional_hmc 60 "${measure[@]}" convolutional_hmc
    stage "the other ops" 45 "${measure[@]}" log_likelihood leapfrog_step net_forward \
        net_potential net_trajectory net_trajectory_vjp net_jvp net_vjp eigenvalue_bound
fi
stage plots 10 "$python" -m vaefast.bench.gpu.plots "$csv" "$out"

{
    printf '\nEach case (%s)\n' "$csv"
    grep -hE '^  (met   |MISSED|FAILED|left out  JAX everywhere|decode_distance in )' "$log" | awk '!said[$0]++' |
        sed -E 's/,( ours)? scaled up from [^:]*:/:/' | cut -c 1-180
    printf '\nEach stage, %d s in all\n' "$SECONDS"
    cat "$work/stages"
} >"$work/summary"
tee -a "$log" <"$work/summary"
exit $((failed > 0))
