"""The public names, frozen: to add one is a decision, made here too."""

from __future__ import annotations

from inspect import Parameter, signature

import mtlkit

PUBLIC = """
    DEFAULT_SPEC Balancer Callback CheckpointError Data DataError GradientMonitor History Model MtlkitError
    NonFiniteError Objective PluginError Problem SharingMonitor SpecError Trainer UnknownNameError adapt balancers
    build_model check_spec datasets encoders export heads json_schema load losses metrics registries sharings
"""
BUILT_IN = {
    "encoder": "cnn embedding identity linear mlp rnn sequential timm torchvision transformer",
    "head": "dense linear mlp token",
    "loss": "bce cross_entropy huber mae mse multilabel multilabel_margin poisson",
    "metric": "accuracy auroc average_precision f1 mae mse poisson_deviance r2 rmse",
    "sharing": "adatt branching cgc cross_stitch dselect_k hard lora mmoe mtan nddr none ple sluice soft",
    "balancer": "aligned_mtl cagrad config constant cosmos dualproj dwa excess_mtl fairgrad famo geometric_mean "
    "graddrop gradnorm gradvac imtl_g imtl_l krum mean mgda nash_mtl pbi pcd pcgrad random stch sum trimmed_mean "
    "upgrad uw",
    "dataset": "conllu csv digits images linear multimnist npz parquet",
}


def test_the_public_names() -> None:
    assert mtlkit.__all__ == PUBLIC.split()
    for name in mtlkit.__all__:
        assert getattr(mtlkit, name) is not None
    assert dir(mtlkit) == sorted([*mtlkit.__all__, "__version__"])


def test_the_built_in_parts() -> None:
    found = {
        registry.kind: " ".join(entry.name for entry in registry.entries() if entry.owner == "built-in")
        for registry in mtlkit.registries.values()
    }
    assert found == BUILT_IN


# Methods and properties of a model beside those of every module, and what is asked for by name.
OF_A_MODEL = """
    add_task as_prediction forget forward freeze from_pretrained head head_groups inputs_of loss penalty predict
    push_to_hub remove_task rename_task save save_pretrained scheme tasks unfreeze
"""
PRETRAINED = {
    "save_pretrained": "folder name license tags data scores run",
    "push_to_hub": "repo_id private token commit_message revision create_pr license tags data scores run",
    "from_pretrained": "name_or_folder revision token cache_dir local_files_only force_download max_parameters",
}


def test_the_methods_of_a_model() -> None:
    assert sorted(name for name in vars(mtlkit.Model) if not name.startswith("_")) == OF_A_MODEL.split()
    for name, expected in PRETRAINED.items():
        parameters = [p for p in signature(getattr(mtlkit.Model, name)).parameters.values() if p.name != "self"]
        assert [p.name for p in parameters] == expected.split()
        assert all(p.kind is Parameter.KEYWORD_ONLY for p in parameters[1:])
