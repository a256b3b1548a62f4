"""The recipes by what they are for, as `jaxrobust list objective` shows them."""

GROUPS: dict[str, tuple[str, ...]] = {
    "standard training": ("standard",),
    "several attack steps": (
        *("pgd_at", "fat", "trades", "mart", "score", "distance_pgd_at", "distance_trades"),
        *("gairat", "gair_fat", "gair_trades", "gkl", "binary_trades"),
    ),
    "one attack step": ("fgsm_rs", "n_fgsm", "grad_align", "liet", "pgi", "nuat"),
    "several networks": ("hat", "lbgat", "adaptive_smoothing"),
    "certified": ("ibp", "crown_ibp", "sabr", "mtl_ibp", "exp_ibp", "cc_ibp"),
    "several norms": ("eat", "max_norms", "avg_norms", "ramp", "msd"),
}
