"""How to use a run, as its model card says it: from Python, or by the command line for one on the Hub."""

from __future__ import annotations

USAGE = (
    "```python\nimport img2prompt_cache as ipc\n\n"
    'found = ipc.predict("run", "pictures/", top_k=3, bank="prompts.txt")\n'
    "found.prompts, found.expected\n```\n\n`run` is the folder or the bundle of this run. Images are "
    "prepared by the package. For each it gives the nearest prompts of the bank, and the cosine that its "
    "prediction is expected to have with the true prompt."
)
"""For a run that is handed on as a folder or a file."""


def shared_usage(repository: str, *, prompts: bool, onnx: str, golden: bool) -> str:
    """Say how a run on the Hub is used.

    Parameters
    ----------
    repository : str
        ``owner/name``.
    prompts, golden : bool
        Whether it has prompts, and a golden set for the graph.
    onnx : str
        The precision of an exported graph; empty where there is none.
    """
    bank = "" if prompts else " --bank starter"
    text = (
        f"```console\n$ pip install img2prompt-cache\n"
        f"$ img2prompt-cache predict --run hf://{repository} IMAGES{bank}\n```\n\n"
        "For each image it gives the nearest prompts, and the cosine that its prediction is expected to have "
        f"with the true prompt. `--out vectors.npy` writes the embeddings; `hf://{repository}@COMMIT` stays "
        "with one commit. "
    )
    text += (
        "The prompts are those that it was fitted on; `--bank FILE` names others."
        if prompts
        else "The prompts are those of a bank that comes with the package; `--bank FILE` names others."
    )
    if onnx:
        text += (
            f"\n\n`run.onnx` is the same model in {onnx} as one ONNX graph for other programs, from pixels "
            "to vectors. Its metadata says how an image is resized."
        )
    if golden:
        text += " `run.golden.npz` holds pixels and the vectors that it gives for them, to try a client on."
    return text
