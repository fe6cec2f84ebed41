"""Omni bases: language models that hear and see by themselves, fine-tuned by LoRA.

Where `avqa_llm.model` puts frozen encoders and a bridge in front of a language model of text, an
omni base (Qwen2.5-Omni, Qwen3-Omni) brings its own towers for sound and picture. The same rows
and the same command teach it; the same `Answer` comes out.
"""
