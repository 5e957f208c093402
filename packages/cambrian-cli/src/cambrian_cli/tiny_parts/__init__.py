"""The pretrained parts of the recipe `tiny`: a language model that has read of scenes, encoders that label cells.

Real runs download such parts; these are made by `cambrian tiny-parts`, from scenes that no recipe trains or evaluates
on. Reading order: recipe, texts, language_model, encoders, build.
"""
