"""Seeds: fixed values, no collisions in practice."""

from emm.seeds import derive


def test_seeds_stay():
    assert derive(1024, "init") == 212283967395809002
    assert derive(1024, "noise", 7) == 7606671444022053532


def test_seeds_differ_by_each_part():
    seeds = {
        derive(seed, purpose, index)
        for seed in range(20)
        for purpose in ("init", "noise", "dropout")
        for index in range(100)
    }
    assert len(seeds) == 20 * 3 * 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1, "2/x") != derive(12, "x")
