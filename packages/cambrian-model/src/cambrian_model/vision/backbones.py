"""The vision backbones of the Cambrian-1 paper, one entry each, and the two that only its released models have.

What an entry says of width, grid and parameters is tested against the model that it names, built without weights.

Source: the paper (arXiv 2406.16860), its tables of backbones and of scores; names and licences are those of the
checkpoints' pages. Interpolation is bicubic throughout: the original resizes every picture with PIL's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

LANGUAGE, SELF, SEGMENTATION = "language-supervised", "self-supervised", "segmentation"
DEPTH, DIFFUSION, LABELS = "depth", "diffusion", "class labels"


@dataclass(frozen=True)
class Study:
    """A backbone's row of the paper's comparison: average over 16 benchmarks, by samples of the alignment stage.

    Attributes:
        without: No alignment stage.
        half: 0.5 M samples, encoder frozen.
        full: 1.2 M samples, encoder frozen.
        unfrozen: 1.2 M samples, encoder trained in the second stage.
    """

    without: float | None = None
    half: float | None = None
    full: float | None = None
    unfrozen: float | None = None


@dataclass(frozen=True)
class Backbone:
    """One backbone by its stable name.

    Attributes:
        name: What a recipe calls it.
        title: What the paper calls it.
        group: How it was trained: the paper's groups.
        library: "timm", "transformers" or "diffusers".
        model: The architecture's name in timm, or the model's on the hub.
        image_side: Pixels per side of the square picture it receives.
        patch: Pixels per side of a token of the deepest level.
        width: Channels of its features.
        native_grid_side: Side of its own token grid.
        grid_side: Side of the grid that the paper (or the released models) interpolates it to.
        parameters: Of what is built: layers behind the feature level and heads are not.
        normalisation: Mean and standard deviation of the pixels.
        licence: Of the weights.
        hub_id: Where its safetensors are; None where they are published as pickles alone.
        feature_layer: Which feature level is taken, counted as the library counts them.
        model_args: What the library must be told; for transformers and diffusers the whole configuration.
        study: Its row of the paper's comparison; None for a backbone that only the released models have.
        note: What is peculiar to it.
        elsewhere: Where the weights are if not on the hub, and what to do with them.
    """

    name: str
    title: str
    group: str
    library: str
    model: str
    image_side: int
    patch: int
    width: int
    native_grid_side: int
    grid_side: int
    parameters: int
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]]
    licence: str
    hub_id: str | None
    feature_layer: int | tuple[int, ...] = -1
    interpolation: str = "bicubic"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    study: Study | None = None
    note: str = ""
    elsewhere: str = ""


_CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_DINOV2_L = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
}
_DINOV2_G = {
    **_DINOV2_L,
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "use_swiglu_ffn": True,
}
_IJEPA_H = {
    "model_type": "ijepa",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
}
_DPT_L = {
    "model_type": "dpt",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 16,
    "is_hybrid": False,
}
_BEIT_L = {
    "model_type": "beit",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 512,
    "patch_size": 16,
    "use_absolute_position_embeddings": False,
    "use_relative_position_bias": True,
    "use_mean_pooling": True,
}
_SD21 = {
    "unet": {
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 2,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "upcast_attention": True,
        "sample_size": 96,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    "scheduler": {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
    },
    "prompt_tokens": 77,
    "timestep": 250,
    "seed": 0,
}

_PICKLE = (
    "read it once where you trust it (torch.load(FILE, weights_only=True)), save its tensors with "
    "safetensors.torch.save_file, and set path to that file"
)
_PADDED = "Differs from the paper: pictures are centred on a square like every encoder's, not put in its upper left."

BACKBONES = (
    Backbone(
        name="clip-l-336",
        title="OpenAI CLIP ViT-L/14@336",
        group=LANGUAGE,
        library="transformers",
        model="openai/clip-vit-large-patch14-336",
        image_side=336,
        patch=14,
        width=1024,
        native_grid_side=24,
        grid_side=24,
        parameters=290_909_184,
        normalisation=CLIP,
        licence="mit",
        hub_id="openai/clip-vit-large-patch14-336",
        feature_layer=-2,
        model_args=_CLIP_L,
        study=Study(48.37, 49.03, 50.49, 52.90),
        note="QuickGELU. The paper prints a width of 768, which is that of the joint space.",
    ),
    Backbone(
        name="dfn-clip-l-224",
        title="DFN-CLIP ViT-L/14@224",
        group=LANGUAGE,
        library="timm",
        model="vit_large_patch14_clip_quickgelu_224.dfn2b",
        image_side=224,
        patch=14,
        width=1024,
        native_grid_side=16,
        grid_side=16,
        parameters=303_179_776,
        normalisation=CLIP,
        licence="apple-ascl",
        hub_id="timm/vit_large_patch14_clip_224.dfn2b",
        study=Study(38.78, 45.59, 46.01, 45.80),
        note="QuickGELU.",
    ),
    Backbone(
        name="dfn-clip-h-378",
        title="DFN-CLIP ViT-H/14@378",
        group=LANGUAGE,
        library="timm",
        model="vit_huge_patch14_clip_quickgelu_378.dfn5b",
        image_side=378,
        patch=14,
        width=1280,
        native_grid_side=27,
        grid_side=27,
        parameters=631_371_520,
        normalisation=CLIP,
        licence="apple-ascl",
        hub_id="timm/vit_huge_patch14_clip_378.dfn5b",
        study=Study(36.79, 50.62, 51.17),
        note="QuickGELU.",
    ),
    Backbone(
        name="eva02-clip-l-336",
        title="EVA-CLIP-02 ViT-L/14@336",
        group=LANGUAGE,
        library="timm",
        model="eva02_large_patch14_clip_336.merged2b",
        image_side=336,
        patch=14,
        width=1024,
        native_grid_side=24,
        grid_side=24,
        parameters=303_645_632,
        normalisation=CLIP,
        licence="mit",
        hub_id="timm/eva02_large_patch14_clip_336.merged2b",
        study=Study(45.84, 47.13, 49.71, 51.30),
    ),
    Backbone(
        name="siglip-l-384",
        title="SigLIP ViT-L/16@384",
        group=LANGUAGE,
        library="timm",
        model="vit_large_patch16_siglip_384.webli",
        image_side=384,
        patch=16,
        width=1024,
        native_grid_side=24,
        grid_side=24,
        parameters=303_688_704,
        normalisation=HALF,
        licence="apache-2.0",
        hub_id="timm/vit_large_patch16_siglip_384.webli",
        study=Study(48.80, 48.11, 50.87, 52.47),
    ),
    Backbone(
        name="siglip-so400m-384",
        title="SigLIP SO400M/14@384",
        group=LANGUAGE,
        library="timm",
        model="vit_so400m_patch14_siglip_384.webli",
        image_side=384,
        patch=14,
        width=1152,
        native_grid_side=27,
        grid_side=27,
        parameters=412_987_248,
        normalisation=HALF,
        licence="apache-2.0",
        hub_id="timm/vit_so400m_patch14_siglip_384.webli",
        study=Study(47.57, 50.41, 53.91, 55.27),
        note="384 pixels are 27 patches of 14; the last 6 rows and columns go unseen. Released models: grid_side 24.",
    ),
    Backbone(
        name="clip-convnext-l-512",
        title="OpenCLIP ConvNeXt-L@512",
        group=LANGUAGE,
        library="timm",
        model="convnext_large_mlp.clip_laion2b_ft_soup_320",
        image_side=512,
        patch=32,
        width=1536,
        native_grid_side=16,
        grid_side=24,
        parameters=196_227_264,
        normalisation=CLIP,
        licence="apache-2.0",
        hub_id="timm/convnext_large_mlp.clip_laion2b_ft_soup_320",
        study=Study(47.38, 48.01, 49.16, 52.76),
        note="Trained at 320 pixels.",
    ),
    Backbone(
        name="clip-convnext-l-1024",
        title="OpenCLIP ConvNeXt-L@1024",
        group=LANGUAGE,
        library="timm",
        model="convnext_large_mlp.clip_laion2b_ft_soup_320",
        image_side=1024,
        patch=32,
        width=1536,
        native_grid_side=32,
        grid_side=24,
        parameters=196_227_264,
        normalisation=CLIP,
        licence="apache-2.0",
        hub_id="timm/convnext_large_mlp.clip_laion2b_ft_soup_320",
        study=Study(39.02, 40.29, 51.00),
        note="Trained at 320 pixels.",
    ),
    Backbone(
        name="clip-convnext-xxl-1024",
        title="OpenCLIP ConvNeXt-XXL@1024",
        group=LANGUAGE,
        library="timm",
        model="convnext_xxlarge.clip_laion2b_soup",
        image_side=1024,
        patch=32,
        width=3072,
        native_grid_side=32,
        grid_side=24,
        parameters=843_391_872,
        normalisation=CLIP,
        licence="apache-2.0",
        hub_id="timm/convnext_xxlarge.clip_laion2b_soup",
        study=Study(41.83, 50.45, 52.18),
        note="Trained at 256 pixels.",
    ),
    Backbone(
        name="clip-convnext-xxl-1024-multistage",
        title="OpenCLIP ConvNeXt-XXL@1024, four stages",
        group=LANGUAGE,
        library="timm",
        model="convnext_xxlarge.clip_laion2b_soup",
        image_side=1024,
        patch=32,
        width=5760,
        native_grid_side=32,
        grid_side=96,
        parameters=843_391_872,
        normalisation=CLIP,
        licence="apache-2.0",
        hub_id="timm/convnext_xxlarge.clip_laion2b_soup",
        feature_layer=(0, 1, 2, 3),
        note="Released models only: four stages (384 + 768 + 1536 + 3072 channels), each interpolated to 96 x 96.",
    ),
    Backbone(
        name="dinov2-l-336",
        title="DINOv2 ViT-L/14@336",
        group=SELF,
        library="transformers",
        model="facebook/dinov2-large",
        image_side=336,
        patch=14,
        width=1024,
        native_grid_side=24,
        grid_side=24,
        parameters=304_367_616,
        normalisation=IMAGENET,
        licence="apache-2.0",
        hub_id="facebook/dinov2-large",
        model_args=_DINOV2_L,
        study=Study(41.18, 42.64, 41.85, 43.26),
        note="Trained at 518 pixels; its position table is interpolated.",
    ),
    Backbone(
        name="dinov2-l-518",
        title="DINOv2 ViT-L/14@518",
        group=SELF,
        library="transformers",
        model="facebook/dinov2-large",
        image_side=518,
        patch=14,
        width=1024,
        native_grid_side=37,
        grid_side=24,
        parameters=304_367_616,
        normalisation=IMAGENET,
        licence="apache-2.0",
        hub_id="facebook/dinov2-large",
        model_args=_DINOV2_L,
        study=Study(without=40.60),
    ),
    Backbone(
        name="dinov2-g-378",
        title="DINOv2 ViT-g/14@378",
        group=SELF,
        library="transformers",
        model="facebook/dinov2-giant",
        image_side=378,
        patch=14,
        width=1536,
        native_grid_side=27,
        grid_side=24,
        parameters=1_136_479_232,
        normalisation=IMAGENET,
        licence="apache-2.0",
        hub_id="facebook/dinov2-giant",
        model_args=_DINOV2_G,
        note="Released models only. Trained at 518 pixels; its position table is interpolated.",
    ),
    Backbone(
        name="mocov3-b-224",
        title="MoCo v3 ViT-B/16@224",
        group=SELF,
        library="timm",
        model="vit_base_patch16_224",
        image_side=224,
        patch=16,
        width=768,
        native_grid_side=14,
        grid_side=14,
        parameters=85_798_656,
        normalisation=IMAGENET,
        licence="cc-by-nc-4.0",
        hub_id=None,
        study=Study(34.94, 38.50, 38.88, 39.51),
        note="The published names (module.base_encoder.*) are translated.",
        elsewhere=f"MoCo v3 publishes a pickle, vit-b-300ep.pth.tar (facebookresearch/moco-v3); {_PICKLE}",
    ),
    Backbone(
        name="mocov3-l-224",
        title="MoCo v3 ViT-L/16@224",
        group=SELF,
        library="timm",
        model="vit_large_patch16_224",
        image_side=224,
        patch=16,
        width=1024,
        native_grid_side=14,
        grid_side=14,
        parameters=303_301_632,
        normalisation=IMAGENET,
        licence="cc-by-nc-4.0",
        hub_id=None,
        study=Study(34.70, 37.71, 37.07, 37.59),
        note="The published names (module.base_encoder.*) are translated.",
        elsewhere=f"no ViT-L of MoCo v3 is known to be published (facebookresearch/moco-v3); of your own, {_PICKLE}",
    ),
    Backbone(
        name="mae-l-224",
        title="MAE ViT-L/16@224",
        group=SELF,
        library="timm",
        model="vit_large_patch16_224.mae",
        image_side=224,
        patch=16,
        width=1024,
        native_grid_side=14,
        grid_side=14,
        parameters=303_301_632,
        normalisation=IMAGENET,
        licence="cc-by-nc-4.0",
        hub_id="timm/vit_large_patch16_224.mae",
        study=Study(37.69, 39.99, 40.39, 41.43),
    ),
    Backbone(
        name="mae-h-224",
        title="MAE ViT-H/14@224",
        group=SELF,
        library="timm",
        model="vit_huge_patch14_224.mae",
        image_side=224,
        patch=14,
        width=1280,
        native_grid_side=16,
        grid_side=16,
        parameters=630_764_800,
        normalisation=IMAGENET,
        licence="cc-by-nc-4.0",
        hub_id="timm/vit_huge_patch14_224.mae",
        study=Study(without=38.58),
    ),
    Backbone(
        name="ijepa-h-224",
        title="I-JEPA ViT-H/14@224",
        group=SELF,
        library="transformers",
        model="facebook/ijepa_vith14_22k",
        image_side=224,
        patch=14,
        width=1280,
        native_grid_side=16,
        grid_side=16,
        parameters=630_762_240,
        normalisation=IMAGENET,
        licence="cc-by-nc-4.0",
        hub_id="facebook/ijepa_vith14_22k",
        model_args=_IJEPA_H,
        study=Study(38.88, 39.91, 40.27, 41.90),
        note="Trained on ImageNet-22k; it has no class token.",
    ),
    Backbone(
        name="sam-l-1024",
        title="SAM ViT-L/16@1024",
        group=SEGMENTATION,
        library="timm",
        model="samvit_large_patch16.sa1b",
        image_side=1024,
        patch=16,
        width=1024,
        native_grid_side=64,
        grid_side=24,
        parameters=307_425_280,
        normalisation=IMAGENET,
        licence="apache-2.0",
        hub_id="timm/samvit_large_patch16.sa1b",
        study=Study(without=31.74),
        note=f"Features before the neck. {_PADDED}",
    ),
    Backbone(
        name="sam-h-1024",
        title="SAM ViT-H/16@1024",
        group=SEGMENTATION,
        library="timm",
        model="samvit_huge_patch16.sa1b",
        image_side=1024,
        patch=16,
        width=1280,
        native_grid_side=64,
        grid_side=24,
        parameters=636_107_520,
        normalisation=IMAGENET,
        licence="apache-2.0",
        hub_id="timm/samvit_huge_patch16.sa1b",
        study=Study(32.37, 32.18, 32.54),
        note=f"Features before the neck. {_PADDED}",
    ),
    Backbone(
        name="midas3-l-384",
        title="MiDaS 3.0 ViT-L/16@384",
        group=DEPTH,
        library="transformers",
        model="Intel/dpt-large",
        image_side=384,
        patch=16,
        width=1024,
        native_grid_side=24,
        grid_side=24,
        parameters=303_688_704,
        normalisation=HALF,
        licence="apache-2.0",
        hub_id="Intel/dpt-large",
        feature_layer=24,
        model_args=_DPT_L,
        study=Study(35.65, 40.07, 39.15, 38.28),
        note="The last layer before the final normalisation, as its depth head reads it.",
    ),
    Backbone(
        name="midas31-beit-l-512",
        title="MiDaS 3.1 BEiT-L/16@512",
        group=DEPTH,
        library="transformers",
        model="Intel/dpt-beit-large-512",
        image_side=512,
        patch=16,
        width=1024,
        native_grid_side=32,
        grid_side=32,
        parameters=304_647_680,
        normalisation=HALF,
        licence="mit",
        hub_id="Intel/dpt-beit-large-512",
        feature_layer=24,
        model_args=_BEIT_L,
        study=Study(without=35.44),
        note="The last layer before the final normalisation. The paper prints 518 pixels; its code has 512.",
    ),
    Backbone(
        name="sd21-512",
        title="Stable Diffusion 2.1@512",
        group=DIFFUSION,
        library="diffusers",
        model="stabilityai/stable-diffusion-2-1",
        image_side=512,
        patch=16,
        width=3520,
        native_grid_side=64,
        grid_side=32,
        parameters=900_062_224,
        normalisation=HALF,
        licence="openrail++",
        hub_id="stabilityai/stable-diffusion-2-1",
        feature_layer=(0, 1, 2, 3),
        model_args=_SD21,
        study=Study(36.59, 38.26, 39.51),
        note="Four up blocks of the UNet at step 250; the noise is drawn once, from a seed. Needs the extra diffusion.",
    ),
    Backbone(
        name="supvit-l-224",
        title="SupViT ViT-L/16@224",
        group=LABELS,
        library="timm",
        model="vit_large_patch16_224.orig_in21k",
        image_side=224,
        patch=16,
        width=1024,
        native_grid_side=14,
        grid_side=14,
        parameters=303_301_632,
        normalisation=HALF,
        licence="apache-2.0",
        hub_id="timm/vit_large_patch16_224.orig_in21k",
        study=Study(40.13, 39.66, 39.12, 40.01),
        note="Trained on ImageNet-21k.",
    ),
    Backbone(
        name="supvit-h-224",
        title="SupViT ViT-H/14@224",
        group=LABELS,
        library="timm",
        model="vit_huge_patch14_224.orig_in21k",
        image_side=224,
        patch=14,
        width=1280,
        native_grid_side=16,
        grid_side=16,
        parameters=630_764_800,
        normalisation=HALF,
        licence="apache-2.0",
        hub_id="timm/vit_huge_patch14_224.orig_in21k",
        study=Study(without=37.45),
        note="Trained on ImageNet-21k.",
    ),
)
