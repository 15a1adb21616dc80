"""Models on the Hugging Face Hub, and in folders to upload there: what `model.save` writes, and a model card.

    model.save_pretrained("houses", license="mit", scores=trainer.evaluate(test), data="400 houses in three cities.")
    model.push_to_hub("anna/houses", private=True)
    model = mtlkit.Model.from_pretrained("anna/houses", revision="v1")

The folder is one of `model.save`, but that its spec names no weights that encoders began from (`pretrained` is false):
`mtlkit.load` reads it, and `from_pretrained` reads what `model.save` wrote. What is fetched passes the same checks as
any folder of a stranger; the links of the Hub's cache are followed as `mtlkit.blob` says. The card is README.md, which
the manifest does not list, since people edit cards on the Hub.

With `run="m/"`, a folder that `mtlkit train` wrote, its run goes along without what is of this machine (see
`mtlkit.hub.run`), so that `mtlkit predict` works on what somebody downloads.
"""
