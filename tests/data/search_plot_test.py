import numpy as np

from seallm_jax.data.search_plot import plot_search


def test_a_picture_of_1600_pixels(tmp_path):
    rng = np.random.default_rng(0)
    codes, sources = ["en", "km", "lo"], ["text/en", "text/km", "text-high/km", "text/lo"]

    def record(name):
        bits = dict(zip(codes, rng.uniform(1, 2, 3).tolist(), strict=True))
        shares = rng.dirichlet(np.ones(4)).tolist()
        return {"name": name, "shares": shares, "bits_per_byte": bits, "objective": 1.5, "left_out": 1.4}

    result = {
        "sources": sources,
        "shares": [0.4, 0.3, 0.2, 0.1],
        "mixtures": [record(name) for name in ("temperature", "proportional", "uniform", "sample 0", "sample 1")],
        "predicted": dict.fromkeys(codes, 1.2),
        "deviation": dict.fromkeys(codes, 0.1),
        "objective": {"predicted": 1.2, "deviation": 0.05},
        "confirmed": record("proposal"),
        "trust": {"spearman": 0.9, "r_squared": 0.8},
    }
    plot_search(result, tmp_path / "proposal.png")
    data = (tmp_path / "proposal.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == 1600
