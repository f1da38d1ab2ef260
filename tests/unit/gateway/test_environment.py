"""Variables that are no settings."""

from samserve.gateway.environment import unknown_variables


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant() -> None:
    assert unknown_variables({"SAMSERVE_MAX_REQUEST": "8", "SAMSERVE_MODEL": "x", "samserve_colour": "red"}) == [
        "SAMSERVE_MAX_REQUEST is not a setting and has no effect; did you mean SAMSERVE_MAX_REQUESTS?",
        "SAMSERVE_MODEL is not a setting and has no effect",
        "samserve_colour is not a setting and has no effect",
    ]


def test_settings_and_variables_of_other_programs_are_not_named() -> None:
    assert (
        unknown_variables({"SAMSERVE_PORT": "1", "samserve_host": "::", "SAMSERVE_TRITON_HOME": "/x", "HOME": "/"})
        == []
    )


def test_variables_by_which_kubernetes_describes_services_are_not_named() -> None:
    links = ("TRITON_SERVICE_HOST", "TRITON_SERVICE_PORT_GRPC", "TRITON_PORT_8001_TCP_ADDR", "SERVICE_HOST")
    assert unknown_variables({f"SAMSERVE_{link}": "10.0.0.1" for link in links}) == []
