"""Environment variables that look like settings but are not."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from samserve.gateway.settings import Settings

_OF_OTHER_PROGRAMS = {"SAMSERVE_TRITON_HOME"}

# Kubernetes and Docker set variables with these names in other pods for a Service named `samserve-...`.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP)|_(ENV|NAME)$")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each unknown `SAMSERVE_*` variable, with the setting that may be meant."""
    prefix = Settings.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in Settings.model_fields}
    sentences = []
    for name in sorted(environment):
        variable = name.upper()
        if not variable.startswith(prefix) or variable in known | _OF_OTHER_PROGRAMS or _SERVICE_LINK.search(variable):
            continue
        meant = get_close_matches(variable, known, n=1, cutoff=0.8)
        sentences.append(f"{name} is not a setting and has no effect{f'; did you mean {meant[0]}?' if meant else ''}")
    return sentences
