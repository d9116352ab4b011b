"""One process of an export: `python spread_export.py SETTINGS` (JSON) imports a folder and exports it again."""

from __future__ import annotations

import json
import sys

import jax.numpy as jnp

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.interop.huggingface import export_model, import_model
from seallm_jax.training.distributed import initialize_distributed


def main(settings: dict) -> int:
    initialize_distributed(settings["coordinator"], settings["processes"], settings["process"])
    mesh = build_mesh(MeshConfig(**settings["mesh"]))
    try:
        imported = import_model(settings["source"], mesh=mesh, param_dtype=jnp.bfloat16)
        summary = export_model(
            imported.parameters,
            imported.config,
            settings["tokenizer"],
            settings["output"],
            base_directory=settings["source"],
            dtype=settings.get("dtype"),
            shard_bytes=9999,
        )
    except SeallmError as error:
        print(f"result: {error}", flush=True)
        return 1
    result = {"dtype": summary.dtype, "tensors": summary.tensors, "files": summary.files}
    print(f"result: {json.dumps(result)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
