"""How published benchmarks set their servers."""

from costmodel.recipes.recipe import AS_CHECKPOINT, ServerSettings, recipe_settings, recipe_source

__all__ = ["AS_CHECKPOINT", "ServerSettings", "recipe_settings", "recipe_source"]
