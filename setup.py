"""Package metadata; tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "seallm_jax" / "__init__.py").read_text(encoding="utf-8")).group(1)

INSTALL_REQUIRES = [
    # arrays, modules, optimizers, checkpoints; JAX 0.10 is the last line for Python 3.11
    "jax>=0.10,<0.13",
    "flax>=0.12.8,<0.14",
    "optax>=0.2.8,<0.4",
    "orbax-checkpoint>=0.12.6,<0.14",
    "numpy>=2.0,<3",
    # data
    "grain>=0.2.18,<0.4",
    "array-record>=0.8.3,<0.10",
    "pyarrow>=20",
    "py3langid>=0.4,<0.5",
    # the corpus pipeline on one process, Slurm or Ray; files here or in a bucket
    "datatrove>=0.10.1,<0.12",
    "fsspec>=2025.3",
    # mojibake; pure Python
    "ftfy>=6.3,<7",
    "scipy>=1.14",
    # compiles the loop that assigns the rows of a long curriculum
    "numba>=0.62",
    # tokenizers and the Hugging Face formats
    "sentencepiece>=0.2.3,<0.4",
    "protobuf>=5",
    "tokenizers>=0.22",
    "transformers>=5.0,<6",
    "huggingface-hub>=1.0",
    "safetensors>=0.6",
    "jinja2>=3.1",
    # configuration, progress, logs, plots
    "ml-collections>=1.1,<2",
    "rich>=14",
    "tensorboardX>=2.6.4",
    "matplotlib>=3.10",
]

# web archives; trafilatura's lxml has its HTML cleaner in a package of its own
WARC = ["warcio>=1.7.5", "trafilatura>=2.0", "lxml_html_clean>=0.4"]
# imports importlib_resources without asking for it
TFDS = ["tensorflow-datasets>=4.9.9", "importlib_resources>=6"]
DATASETS = ["datasets>=4"]
QUANTIZATION = ["qwix>=0.1.8,<0.3"]

EXTRAS_REQUIRE = {
    # where the corpus is read from, and where its pipeline runs
    "warc": WARC,
    "cloud": ["gcsfs>=2025.3", "s3fs>=2025.3"],
    "tfds": TFDS,
    "datasets": DATASETS,
    "ray": ["ray>=2.50"],
    # language models of fastText, as GlotLID's; n-gram models of KenLM, compiled on installation
    "fasttext": ["fasttext-predict>=0.9.2.4"],
    "kenlm": ["kenlm>=0.3"],
    # the compiler for `seallm plan`; it needs no TPU
    "plan": ["libtpu>=0.0.52"],
    # products in int8 and fp8, for `config.<stage>.matmul_dtype`
    "quantization": QUANTIZATION,
    # log lines to Weights & Biases, for `config.<stage>.wandb`
    "wandb": ["wandb>=0.22"],
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "test": [
        "pytest>=9",
        "pytest-xdist>=3.8",
        "hypothesis>=6.130",
        "sacrebleu>=2.5",
        # other implementations of MinHash
        "datasketch>=2.0,<3",
        "rensa>=0.5",
        # real tokenizers: SentencePiece v1 and tekken, Qwen
        "mistral-common>=1.8",
        "dashscope>=1.20",
        *WARC,
        *TFDS,
        *DATASETS,
        *QUANTIZATION,
        # Burmese encodings, Thai spelling
        "myanmartools>=1.2",
        "pythainlp>=5",
        # reads the models of fastText
        "fasttext-predict>=0.9.2.4",
    ],
    # the oracles; torch 2.13.0 has a small CPU build for Python 3.11
    "parity": ["torch==2.13.0", "peft>=0.17"],
    "lint": ["ruff>=0.14", "mypy>=1.18"],
}

setup(
    name="seallm_jax",
    version=VERSION,
    description="Adapt open language models to Southeast Asian and other low-resource languages, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["seallm_jax", "seallm_jax.*"]),
    package_data={"seallm_jax": ["sample/README.md", "sample/*/*", "evaluation/*.html", "corpus/*.txt"]},
    python_requires=">=3.11",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["seallm = seallm_jax.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
