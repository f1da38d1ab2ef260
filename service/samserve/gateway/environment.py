"""Environment variables that look like settings of a gateway and are none."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from samserve.gateway.settings import Settings

_OF_OTHER_PROGRAMS = {"SAMSERVE_TRITON_HOME"}

# Kubernetes and Docker describe a service called `samserve-...` to other pods by variables of these names.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP)|_(ENV|NAME)$")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each `SAMSERVE_*` variable that sets nothing, with the setting that may be meant."""
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
