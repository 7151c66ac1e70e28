# SPDX-License-Identifier: Apache-2.0
"""The phases of tests/gpu/run.sh, with a budget of time; standard library only.

Tests come from a list (list_tests.py).  Every part is a process of its own with a time limit, in a process group that is
ended as a whole.  What no time is left for is named, and counts neither as passed nor as failed.
"""
import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import figures

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
PHASES = ("tests", "ranks", "bench", "sanitize", "compile")


def options():
    p = argparse.ArgumentParser(prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", help="a build folder, with CTest beside it")
    p.add_argument("--bundle", help="what tests/gpu/pack.sh packed, unpacked")
    p.add_argument("--out", default=os.environ.get("OUT") or "run-gpu", help="folder for results.json and logs.tar.gz (default: $OUT or run-gpu)")
    p.add_argument("--phases", default=",".join(PHASES), help="some of %(default)s, in this order; compile: training once more, by torch.compile")
    p.add_argument("--budget", type=float, default=540, help="seconds in all (default: %(default)s)")
    p.add_argument("--only", default="", help="tests whose names contain this")
    p.add_argument("--jobs", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)), help="tests side by side (default: %(default)s)")
    p.add_argument("--label", default="gpu", help="CTest's label of the tests, with --build (cuda: on the emulator)")
    p.add_argument("--program", help="program to measure instead of the build's kdhpc")
    p.add_argument("--python", default="python3", help="Python with torch and transformers (default: %(default)s)")
    p.add_argument("--figures", default="", help="some of " + ",".join(figures.NAMES) + " (default: all)")
    p.add_argument("--tiny", action="store_true", help="small shapes, PyTorch on the CPU: to try these scripts where there is no GPU")
    p.add_argument("--sanitize_all", action="store_true", help="every op test under every tool")
    o = p.parse_args()
    if bool(o.build) == bool(o.bundle):
        p.error("give --build or --bundle")
    o.phases = [x for x in o.phases.split(",") if x]
    if set(o.phases) - set(PHASES):
        p.error(f"--phases: allowed are {','.join(PHASES)}")
    return o


class Run:
    """What all phases share: clock, folders, results."""

    def __init__(self, o):
        self.o = o
        self.end = time.monotonic() + o.budget
        self.start = time.monotonic()
        self.out = os.path.abspath(o.out)
        self.scratch = tempfile.mkdtemp(prefix="kdhpc-gpu-")
        self.logs = os.path.join(self.scratch, "logs")
        self.results = {"tests": [], "figures": [], "left_out": [], "failed": []}
        self.lock = threading.Lock()
        os.makedirs(self.out, exist_ok=True)
        os.makedirs(self.logs)
        if o.bundle:
            self.root = os.path.abspath(o.bundle)
            self.program = os.path.join(self.root, "bin", "kdhpc")
        else:
            self.root = os.path.abspath(o.build)
            self.program = os.path.join(self.root, "src", "kdhpc")
        if o.program:
            self.program = os.path.abspath(o.program)

    def left(self):
        return self.end - time.monotonic()

    def say(self, text):
        with self.lock:
            print(f"[{time.monotonic() - self.start:5.0f} s] {text}", flush=True)

    def leave_out(self, what):
        self.results["left_out"].append(what)
        self.say(f"left out: {what}")

    def fail(self, what):
        self.results["failed"].append(what)

    def log(self, name):
        return os.path.join(self.logs, name + ".log")

    def process(self, name, command, limit, environment=None, stdout=None, packed=False):
        """Run COMMAND for at most LIMIT seconds; (exit code or None on a time-out, seconds).  Output goes to a log.
        PACKED: with the libraries of the bundle, if there is one."""
        env = dict(os.environ, **(environment or {}))
        if packed and "KD_LIBRARY_PATH" in env:
            env["LD_LIBRARY_PATH"] = env["KD_LIBRARY_PATH"]
        start = time.monotonic()
        with open(self.log(name), "wb") as log:
            out = open(stdout, "wb") if stdout else log
            try:
                p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=env, start_new_session=True)
            except OSError as e:
                log.write(f"{e}\n".encode())
                return 127, 0.0
            finally:
                if stdout:
                    out.close()
            try:
                code = p.wait(timeout=max(1.0, limit))
            except subprocess.TimeoutExpired:
                code = None
            try:
                os.killpg(p.pid, signal.SIGKILL)  # also what a launcher left behind
            except ProcessLookupError:
                pass
            p.wait()
        return code, time.monotonic() - start

    def says(self, name, word):
        with open(self.log(name), errors="replace") as f:
            return word in f.read().lower()

    def tail(self, name, lines=12):
        with open(self.log(name), errors="replace") as f:
            return "".join("        " + x.rstrip()[:200] + "\n" for x in f.readlines()[-lines:])


def list_of_tests(run):
    if run.o.bundle:
        path = os.path.join(run.root, "tests.json")
    else:
        path = os.path.join(run.scratch, "tests.json")
        subprocess.run([sys.executable, os.path.join(HERE, "list_tests.py"), run.root, run.o.label, path], check=True)
    places = {"@BIN@": os.path.join(run.root, "bin"), "@WRAP@": os.path.join(run.root, "wrap"), "@SRC@": os.path.join(run.root, "src"),
              "@OMPI@": os.path.join(run.root, "ompi", "bin"), "@WORK@": os.path.join(run.scratch, "work")}

    def there(word):
        for k, v in places.items():
            word = word.replace(k, v)
        return word

    with open(path) as f:
        tests = json.load(f)
    for t in tests:
        t["command"] = [there(w) for w in t["command"]]
        t["environment"] = {k: there(v) for k, v in t["environment"].items()}
        if run.o.bundle:
            t["environment"].setdefault("KD_SOURCE_DIR", places["@SRC@"])
    return [t for t in tests if run.o.only in t["name"]]


def no_device(run):
    """Why there is nothing to run on; empty if there is."""
    command = [run.program, "--mode", "bench", "--what", "gemm", "--device", "cuda", "--d_model", "16", "--tokens", "16", "--vocab_size", "16", "--peak_size", "16", "--seconds", "0.001"]
    code, _ = run.process("device", command, 120, packed=True)
    if code == 2:
        with open(run.log("device"), errors="replace") as f:
            return f.read().strip() or "no CUDA device"
    if code:
        run.fail("device: the smallest product on the GPU")
        run.say(f"FAILED the smallest product on the GPU (exit {code})\n{run.tail('device')}")
    return ""


def verdict(run, name, code, seconds, limit, kind):
    word = {0: "passed", SKIPPED: "skipped", None: "FAILED"}.get(code, "FAILED")
    note = "" if word != "FAILED" else f" (no end after {limit:.0f} s)" if code is None else f" (exit {code})"
    with run.lock:
        run.results["tests"].append({"phase": kind, "name": name, "result": word.lower(), "code": code, "seconds": round(seconds, 2)})
    if word == "FAILED":
        run.fail(f"{kind}: {name}{note}")
        run.say(f"{word} {name}{note}\n{run.tail(name)}")
    else:
        run.say(f"{word} {name}, {seconds:.1f} s")


def one_test(run, t, kind, wrap=(), environment=None, prefix=""):
    name = prefix + t["name"]
    limit = min(t["seconds"], 150.0 if kind != "sanitize" else 240.0, run.left())
    if limit < 5:
        run.leave_out(f"{kind}: {name}")
        return
    code, seconds = run.process(name, list(wrap) + t["command"], limit, {**t["environment"], **(environment or {})}, packed=not t["script"])
    verdict(run, name, code, seconds, limit, kind)


def side_by_side(run, jobs, calls):
    with concurrent.futures.ThreadPoolExecutor(max_workers=jobs) as pool:
        for f in [pool.submit(*c) for c in calls]:
            f.result()


def is_alone(t):
    """One process that is a test program: no launcher, no script."""
    return t["processes"] == 1 and not t["script"]


def phase_tests(run, tests):
    side_by_side(run, run.o.jobs, [(one_test, run, t, "tests") for t in tests if is_alone(t)])


def phase_ranks(run, tests):
    side_by_side(run, max(1, run.o.jobs // 2), [(one_test, run, t, "ranks") for t in tests if not is_alone(t)])


# What each tool gets: racecheck and initcheck slow kernels most, and synccheck looks at barriers only.
TOOLS = (("memcheck", ["--leak-check", "no"]), ("racecheck", []), ("synccheck", []), ("initcheck", []))
SLOW = "*large*"  # tests whose names contain this have many or long launches


def phase_sanitize(run, tests):
    tool = next((x for x in (shutil.which("compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer",
                             "/usr/local/cuda/compute-sanitizer/compute-sanitizer") if x and os.path.exists(x)), None)
    if not tool:
        run.say("skipped: no compute-sanitizer on this machine")
        run.results["left_out"].append("sanitize: no compute-sanitizer on this machine")
        return
    programs = [t for t in tests if is_alone(t) and os.path.basename(t["command"][0]).startswith(f"test_{run.o.label}_")]
    if not run.o.sanitize_all:  # in the type that training takes, and what has one type
        typed = {t["command"][0] for t in programs if "OT_TYPE" in t["environment"]}
        programs = [t for t in programs if t["environment"].get("OT_TYPE") == "bfloat16" or t["command"][0] not in typed]
    few = {} if run.o.sanitize_all else {"OT_SKIP": SLOW}
    calls = []
    for name, extra in TOOLS:
        wrap = [tool, "--tool", name, "--error-exitcode", "99", "--print-limit", "20", *extra]
        calls += [(one_test, run, t, "sanitize", wrap, few, name + "_") for t in programs]
    side_by_side(run, max(run.o.jobs, 1), calls)


def main():
    o = options()
    run = Run(o)
    try:
        sys.exit(go(run))
    finally:
        shutil.rmtree(run.scratch, ignore_errors=True)


def go(run):
    o = run.o
    why = no_device(run)
    if why:
        print(f"skipped: no device ({why})")
        run.results["skipped"] = why
        write(run)
        return SKIPPED
    tests = []
    if set(o.phases) & {"tests", "ranks", "sanitize"}:
        try:
            tests = list_of_tests(run)
        except (OSError, subprocess.CalledProcessError) as e:
            run.fail(f"no list of tests: {e}")
    phases = {"tests": lambda: phase_tests(run, tests), "ranks": lambda: phase_ranks(run, tests),
              "bench": lambda: figures.measure(run), "sanitize": lambda: phase_sanitize(run, tests),
              "compile": lambda: figures.measure_compiled(run)}
    for name in o.phases:
        run.say(f"== {name}")
        if run.left() < 10:
            run.leave_out(name)
            continue
        try:
            phases[name]()
        except Exception as e:  # a part must not stop the others
            run.fail(f"{name}: {type(e).__name__}: {e}")
            run.say(f"FAILED {name}: {type(e).__name__}: {e}")
        write(run)
    report(run)
    return 1 if run.results["failed"] else 0


def write(run):
    path = os.path.join(run.out, "results.json")
    with open(path + ".part", "w") as f:
        json.dump(run.results, f, indent=1)
    os.replace(path + ".part", path)
    with tarfile.open(os.path.join(run.out, "logs.tar.gz"), "w:gz") as tar:
        tar.add(run.logs, "logs")


def report(run):
    r = run.results
    r["seconds"] = round(time.monotonic() - run.start, 1)
    table = figures.table(r)
    r["table"] = table
    write(run)
    print()
    for kind in ("tests", "ranks", "sanitize"):
        of = [t["result"] for t in r["tests"] if t["phase"] == kind]
        if of:
            print(f"{kind}: {of.count('passed')} passed, {of.count('failed')} failed, {of.count('skipped')} skipped")
    figures.show(table, r["figures"])
    for kind in sorted({x.split(":")[0] for x in r["left_out"]}):
        names = [x.partition(": ")[2] or x for x in r["left_out"] if x.split(":")[0] == kind]
        print(f"left out of {kind}: {len(names)}: {', '.join(names)}")
    for x in r["failed"]:
        print(f"FAILED: {x}")
    print(f"{r['seconds']:.0f} s; all numbers: {run.out}/results.json, all output: {run.out}/logs.tar.gz")


main()
