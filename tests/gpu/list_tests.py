# SPDX-License-Identifier: Apache-2.0
"""The tests of a build that need a GPU, as a list that can be run without CTest.

list_tests.py BUILD_DIR LABEL OUT.json [BUNDLE_DIR]: what CTest knows of the tests with LABEL: name, command, environment,
number of processes, seconds.  With BUNDLE_DIR their programs are copied to BUNDLE_DIR/bin, and @BIN@, @WRAP@, @SRC@, @WORK@ and
@OMPI@ stand for what is elsewhere on the machine that runs them; scripts get programs by their wrappers.
"""
import json
import os
import re
import shutil
import subprocess
import sys

# Of the build machine alone.
DROP = ("CC", "KD_MPI_INCLUDES")


def properties(test):
    return {p["name"]: p["value"] for p in test["properties"]}


def cache(build):
    """Entries of CMakeCache.txt."""
    with open(os.path.join(build, "CMakeCache.txt")) as f:
        return dict(re.findall(r"^(\w+):\w+=(.*)$", f.read(), re.M))


def main():
    build, label, out = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    bundle = sys.argv[4] if len(sys.argv) > 4 else None
    entries = cache(build)
    source, mpiexec = entries["CMAKE_HOME_DIRECTORY"], entries["MPIEXEC_EXECUTABLE"]
    text = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1", "-L", f"^{label}$"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    programs = {}

    def portable(word, script):
        if not bundle:
            return word
        if word == mpiexec:
            return "@WRAP@/mpirun" if script else "@OMPI@/mpirun"
        if word.startswith(build + "/"):
            if os.path.isfile(word) and os.access(word, os.X_OK):
                if programs.setdefault(os.path.basename(word), word) != word:
                    sys.exit(f"list_tests: two programs are called {os.path.basename(word)}")
                return ("@WRAP@/" if script else "@BIN@/") + os.path.basename(word)
            return "@WORK@/" + os.path.basename(word)
        return word.replace(source, "@SRC@")

    tests = []
    for test in json.loads(text[text.index("{"):])["tests"]:
        if "command" not in test:
            sys.exit(f"list_tests: {test['name']} is not built")
        p = properties(test)
        script = os.path.basename(test["command"][0]) == "bash"
        environment = dict(e.split("=", 1) for e in p.get("ENVIRONMENT", []) if "=" in e)  # a list is in pieces
        tests.append({
            "name": test["name"],
            "command": [portable(w, script) for w in test["command"]],
            "environment": {k: portable(v, script) for k, v in environment.items() if k not in DROP},
            "script": script,
            "processes": p.get("PROCESSORS", 1),
            "seconds": p.get("TIMEOUT", 120),
        })
    with open(out, "w") as f:
        json.dump(tests, f, indent=1)
    for path in programs.values():
        shutil.copy(path, os.path.join(bundle, "bin"))


main()
