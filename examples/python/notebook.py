# %% [markdown]
# # Objects in, a better model out
#
# Everything that `prefopt.train` takes besides file names: a model in memory, frames of rows, an adapter's configuration of peft,
# callbacks and metrics of your own. Open this file as a notebook (VS Code, PyCharm, or Jupyter with jupytext), or run it:
# `python examples/python/notebook.py`, 20 seconds on two CPU cores.
#
# The model and the rows are those of a small text world, made on your machine. In their place come your own
# `AutoModelForCausalLM.from_pretrained(...)` and your own frame.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

import prefopt
from prefopt.worlds import get_world

RUNS = Path("runs/notebook")
world = get_world("text", hidden_size=64, num_hidden_layers=2, max_words=3, pretrain_steps=150)
start = world.model_dir()
model = AutoModelForCausalLM.from_pretrained(start)
tokenizer = AutoTokenizer.from_pretrained(start)

# %% [markdown]
# ## Rows: look at them, choose among them
#
# Any frame with the columns of [data](../../docs/data.md) will do, of pandas or polars; so will lists, streams and generators.

# %%
rows = pandas.DataFrame(world.comparisons(96))
print(rows[["chosen", "rejected", "label", "score_chosen", "score_rejected"]].head(3).to_string())
print(rows["label"].value_counts().to_string())

train_rows = rows[: len(rows) * 3 // 4]
judged = rows[len(rows) * 3 // 4 :]
judged = {"wins": judged[judged["label"] == "win"], "ties": judged[judged["label"] == "tie"]}  # judged apart

# %% [markdown]
# ## Code of yours that a run listens to
#
# A callback hears of the start, of steps, evaluations, checkpoints and the end, and may end the run. `compute_metrics` turns held-out
# margins and samples into numbers beside prefopt's own. Callbacks written for transformers' `Trainer` work, too.


# %%
class StopBeforeItDrifts(prefopt.Callback):
    """Ends a run that has gone too far from where it began."""

    def __init__(self, nats: float) -> None:
        self.nats = nats

    def on_evaluate(self, run, metrics):
        if metrics["eval_kl"] > self.nats:
            run.stop(f"KL {metrics['eval_kl']:.1f} is above {self.nats}")


class PrintEveryTen(TrainerCallback):
    """Of transformers."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs and state.global_step % 10 == 0:  # and not a line of an evaluation
            print(f"step {state.global_step} of {state.max_steps}: loss {logs['loss']:.3f}")


def narrow_wins(evaluation):
    """How many held-out wins the policy gets right by less than a tenth of a nat."""
    margins = evaluation.margins["wins"]
    return {"narrow": sum(0 < m < 0.1 for m in margins) / len(margins)}


# %% [markdown]
# ## The run

# %%
result = prefopt.train(
    "dpo_rk",  # models ties; "dpo" would ask what they should mean
    model=model,
    tokenizer=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    data=train_rows,
    eval_data=judged,
    callbacks=[
        StopBeforeItDrifts(nats=20),
        PrintEveryTen(),
        prefopt.EarlyStopping(3, metric="eval_wins_loss"),
    ],
    compute_metrics=narrow_wins,
    beta=0.3,
    learning_rate=2e-3,
    num_train_epochs=2,
    per_device_train_batch_size=8,
    eval_steps=10,
    load_best_model_at_end=True,
    metric_for_best_model="eval_wins_loss",
    output_dir=str(RUNS / "ties"),
    overwrite=True,
)
print(f"accuracy {result.metrics['eval_wins_rewards/accuracies']:.2f}, report: {result.report}")

# %% [markdown]
# ## What happened
#
# `result.history` holds every line of `metrics.jsonl`; the page at `result.report` draws them all.

# %%
history = pandas.DataFrame(result.history).set_index("step")
axes = history["loss"].dropna().plot(label="training", xlabel="step", ylabel="loss")
history["eval_loss"].dropna().plot(ax=axes, label="held out", marker="o", legend=True)
plt.savefig(RUNS / "loss.png")
print(history[["eval_wins_rewards/accuracies", "eval_narrow", "eval_kl"]].dropna().round(3).to_string())

# %% [markdown]
# ## What came of it
#
# The adapter on its base, as a model to use; or one model without adapters, as a folder that transformers loads.

# %%
trained, tokenizer = result.load_model()
merged = prefopt.merge(result.output_dir)
print(f"merged; scores differ by {merged.difference:.1e} nats at most")
before = world.expected_reward(model, tokenizer, n_prompts=50)
after = world.expected_reward(AutoModelForCausalLM.from_pretrained(merged.folder), tokenizer, n_prompts=50)
print(f"exact score of samples: {before.mean:.2f} before, {after.mean:.2f} after")
