from bisonsync.keys import WorkspaceKey


def test_a_key_is_shown_as_operators_type_it_and_read_back() -> None:
    key = WorkspaceKey("maverick", 17)

    assert (str(key), f"{key}") == ("maverick/17", "maverick/17")
    assert WorkspaceKey.parse("maverick/17") == key


def test_a_key_is_a_tuple_to_dicts_and_drivers() -> None:
    found = {("maverick", 17): "Acme"}

    assert found[WorkspaceKey("maverick", 17)] == "Acme"
    assert sorted([WorkspaceKey("b", 1), WorkspaceKey("a", 10), WorkspaceKey("a", 9)])[:2] == [("a", 9), ("a", 10)]
