"""Answers of any server that speaks OpenAI's protocol: vLLM, `transformers serve`, llama.cpp, or a hosted one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from prefopt.generation.base import Prompt, Request, Response, Settings, sample_seed

K = TypeVar("K")
V = TypeVar("V")

SEED_BITS = 31  # what servers take


class Connection:
    """One server and one of its models: bounded concurrency, retries, timeouts, errors that say what to do.

    Args:
        url: where the protocol begins, such as http://localhost:8000/v1.
        model: the server's name for the model.
        concurrency: requests under way at once.
        timeout: seconds to wait for one answer.
        retries: times that a request is tried again, after 0.5, 1, 2, ... 8 seconds, when the server is busy, fails,
            or does not answer.
        api_key: of the server; None takes OPENAI_API_KEY of the environment, or none.

    Raises:
        ValueError: the `openai` package is missing, or a number is out of range.

    Example:
        >>> with Connection("http://localhost:8000/v1", "my-model") as server:      # doctest: +SKIP
        ...     server.client.models.list()
    """

    def __init__(
        self,
        url: str,
        model: str,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        api_key: str | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a server's address begins with http:// or https://; given {url!r}")
        if not model:
            raise ValueError(f"the server at {url} needs the name of a model; given an empty one")
        if concurrency < 1 or timeout <= 0 or retries < 0:
            raise ValueError(
                f"needed concurrency >= 1, timeout > 0 and retries >= 0; given {concurrency}, {timeout} and {retries}"
            )
        self.url, self.model, self.concurrency = url.rstrip("/"), model, concurrency
        self.timeout, self.retries = timeout, retries
        self.key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        self.client: Any = None
        import_openai()

    def __enter__(self) -> Connection:
        """Connect, or say at once that nobody is there."""
        openai = import_openai()
        self.client = openai.OpenAI(
            base_url=self.url, api_key=self.key, timeout=self.timeout, max_retries=self.retries
        )
        try:
            self.client.with_options(max_retries=0, timeout=min(self.timeout, 20.0)).models.list()
        except openai.APITimeoutError:
            pass  # busy, perhaps with loading a model
        except openai.APIConnectionError as error:
            self.client.close()
            raise self._explained(error) from error
        except openai.APIError:
            pass  # somebody is there; not every server lists its models
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def all(self, jobs: Mapping[K, Callable[[], V]]) -> Iterator[tuple[K, V]]:
        """Results of the calls as they arrive, under their keys.

        When one fails, no new ones begin; those under way are waited for and handed out before the error is raised.

        Raises:
            ConnectionError: the server cannot be reached, or keeps failing.
            ValueError: the server refuses a request.
        """
        failure: BaseException | None = None
        waiting: dict[Future[V], K] = {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="prefopt-server")
        try:
            waiting = {pool.submit(job): key for key, job in jobs.items()}
            for done in as_completed(waiting):
                if done.cancelled():
                    continue
                error = done.exception()
                if error is None:
                    yield waiting[done], done.result()
                elif failure is None:
                    failure = self._explained(error)
                    for other in waiting:
                        other.cancel()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failure is not None:
            raise failure from failure.__cause__

    def _explained(self, error: BaseException) -> BaseException:
        openai = import_openai()
        if not isinstance(error, openai.OpenAIError):
            return error
        told = self._told(error)
        told.__cause__ = error
        return told

    def _told(self, error: Any) -> Exception:
        openai = import_openai()
        here = f"the server at {self.url}"
        if isinstance(error, openai.APITimeoutError):
            return ConnectionError(
                f"{here} did not answer within {self.timeout:g} seconds, {self.retries + 1} times: raise the timeout, or "
                "lower the concurrency. What had arrived is kept; run again to continue"
            )
        if isinstance(error, openai.APIConnectionError):
            return ConnectionError(
                f"no server answers at {self.url} ({error.__cause__ or error}): start one there, for instance with "
                f"`transformers serve --port ...` or `vllm serve {self.model}`, or correct the address (it usually ends "
                "in /v1). What had arrived is kept; run again to continue"
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ValueError(f"{here} refuses the key ({error}): set OPENAI_API_KEY to the right one")
        if isinstance(error, openai.NotFoundError):
            return ValueError(
                f"{here} knows no model {self.model!r}, or not this kind of request: {_said(error)}"
            )
        if isinstance(error, openai.APIStatusError) and error.status_code < 500 and error.status_code != 429:
            return ValueError(f"{here} refuses a request for model {self.model!r}: {_said(error)}")
        return ConnectionError(
            f"{here} failed {self.retries + 1} times ({error}). What had arrived is kept; run again to continue"
        )


def check_server(url: str, model: str) -> None:
    """Find out now what would otherwise be found out after expensive work.

    Raises:
        ValueError: the `openai` package is missing, or the address is none.
        ConnectionError: nobody is there.
    """
    with Connection(url, model):
        pass


def _said(error: Any) -> str:
    """What the server answered, where the library's message leaves it out."""
    body = error.response.text.strip()[:300]
    return str(error) if body in str(error) else f"{error} {body}"


class ServerGenerator:
    """Answers from a server.

    Each sample is one request with its own seed. Whether a seed is honoured is the server's business; `transformers
    serve` does so for one request at a time (concurrency=1). It also draws only where the model's
    `generation_config.json` says `do_sample: true`, whatever the temperature.

    Args:
        url: where the protocol begins, such as http://localhost:8000/v1.
        model: the server's name for the model.
        concurrency: requests under way at once.
        timeout: seconds to wait for one answer.
        retries: times that a request is tried again, after growing pauses.
        api_key: of the server; None takes OPENAI_API_KEY of the environment, or none.

    Raises:
        ValueError: the `openai` package is missing, or an argument is out of range.

    Example:
        >>> generator = ServerGenerator("http://localhost:8000/v1", "my-model")               # doctest: +SKIP
        >>> batches = generator.generate([Request("a", [{"role": "user", "content": "Hi"}])], Settings())  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        model: str,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        api_key: str | None = None,
    ) -> None:
        self.connection = Connection(url, model, concurrency, timeout, retries, api_key)
        self.identity = model  # not the address: a server that comes back elsewhere is still the same model

    carries: frozenset[str] = frozenset()
    """What of a request's template `messages` puts into what is sent."""

    def generate(self, requests: Sequence[Request], settings: Settings) -> Iterator[list[Response]]:
        """Responses one by one, as they arrive.

        Raises:
            ConnectionError: the server cannot be reached or keeps failing, after all that arrived was handed out.
            ValueError: a request with tools and the like, before anything is asked; the server refuses a request.
        """
        for request in requests:
            if refused := [name for name in request.template if name not in self.carries]:
                raise ValueError(
                    f"request {request.id!r} carries {', '.join(refused)}, which a server is not asked with yet: "
                    "leave them out, or sample in this process"
                )
        texts: dict[str, list[str]] = {}
        with self.connection as server:
            jobs = {
                (request.id, sample): self._asking(server, request, sample, settings)
                for request in requests
                for sample in request.samples
            }
            for _, response in server.all(jobs):
                texts.setdefault(response.id, []).append(response.text)
                yield [response]
        several = [found for found in texts.values() if len(found) > 1]
        if settings.temperature > 0 and len(several) > 3 and all(len(set(found)) == 1 for found in several):
            warnings.warn(
                f"all samples of each prompt are equal, at temperature {settings.temperature:g}: the server at "
                f"{self.connection.url} seems not to draw. transformers serve does so only if the model's "
                "generation_config.json says do_sample: true",
                stacklevel=2,
            )

    def messages(self, request: Request) -> Prompt:
        """What is sent for a request: its prompt."""
        return request.prompt

    def _asking(
        self, server: Connection, request: Request, sample: int, settings: Settings
    ) -> Callable[[], Response]:
        """A call that asks for one sample."""
        options: dict[str, Any] = {
            "model": server.model,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": sample_seed(settings.seed, request.id, sample, SEED_BITS),
        }

        def ask() -> Response:
            messages = self.messages(request)
            if isinstance(messages, str):
                found = server.client.completions.create(prompt=messages, **options)
                text = found.choices[0].text or ""
            else:
                found = server.client.chat.completions.create(messages=messages, **options)
                text = (found.choices[0].message.content or "").strip()
            tokens = 0 if found.usage is None else found.usage.completion_tokens
            return Response(request.id, sample, text, tokens, found.choices[0].finish_reason == "stop")

        return ask


def import_openai() -> Any:
    """The client library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import openai
    except ImportError:
        raise ValueError(
            "talking to a server needs the openai package: pip install 'prefopt[serving]'"
        ) from None
    return openai
