"""Share of the branches of domain and use cases that the tests took, from the data that coverage left.

python -m tools.branch_coverage PERCENT    prints it; exit code 1 if it is lower than this
"""

import json
import subprocess
import sys


def main(least_percent: float) -> int:
    command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"]
    totals = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["totals"]
    taken, all_of_them = totals["covered_branches"], totals["num_branches"]
    percent = 100.0 * taken / all_of_them
    print(f"branches of domain and use cases: {taken} of {all_of_them}, {percent:.1f} %")
    if percent < least_percent:
        print(f"at least {least_percent:g} % have to be taken; see the report above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
