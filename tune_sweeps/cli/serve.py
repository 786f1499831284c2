"""Implement ``tutor serve``: tutors as a service, on this machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import takes

if TYPE_CHECKING:
    from rich.console import Console

    from tutor_service.config import TutorConfig
    from tutor_service.serving import HttpConfig
    from tutor_service.serving.serve_file import ServeFile


@dataclass(frozen=True)
class ServeOptions:
    """The options of ``tutor serve``."""

    tutors: Annotated[
        list[str],
        typer.Argument(help="Tutors: names (see `tutor tutors`) or paths of YAML files; or one Serve file."),
    ]
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="Replicas of one tutor. May be repeated.")
    ] = None
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: 8000.")] = None
    token_env: Annotated[
        str | None, typer.Option(help="Environment variable with the bearer token that callers must show.")
    ] = None
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token.")] = None
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster: tutors stay there. Default: a local Ray.")
    ] = None
    stop: Annotated[bool, typer.Option("--stop", help="Take the tutors down instead; needs a running cluster.")] = False


@takes(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve tutors over HTTP and to students. On a local Ray this runs until Ctrl-C; on a cluster it returns.

    Examples:

    - `tutor serve smollm2` – then `tutor ask smollm2 blackjack` in another terminal

    - `tutor serve llama vicuna --replicas llama=2 --address auto`

    - `tutor serve deploy/serve/paper.yaml --address auto` – as `serve deploy`, and waits until the tutors answer

    - `tutor serve llama --stop --address auto`
    """
    from rllib_plugins.tutors import check_tutor
    from tune_sweeps.cluster.session import wanted_address
    from tune_sweeps.console.signals import EXIT_INTERRUPTED, interruptible
    from tune_sweeps.console.terminal import log_path, quiet
    from tutor_service.errors import UserError
    from tutor_service.secrets import read_secret
    from tutor_service.serving import HttpConfig
    from tutor_service.serving.serve_file import is_serve_file, read_serve_file

    file = None
    tutors, token_env, token_file = options.tutors, options.token_env, options.token_file
    if any(map(is_serve_file, tutors)):
        if len(tutors) > 1 or options.replicas or options.host or options.port or token_env or token_file:
            raise UserError("a Serve file says itself what is served, where and to whom: give it alone, and edit it.")
        file = read_serve_file(tutors[0])
        configs, http = list(file.tutors), file.http
    else:
        configs = [config for config in map(check_tutor, tutors) if config is not None and config.is_served]
        if not configs:
            raise UserError(
                f"{', '.join(tutors)}: references and recorded answers run in the student. There is nothing to serve."
            )
        configs = _with_replicas(configs, options.replicas or [])
        http = HttpConfig(options.host or "127.0.0.1", options.port or 8000, token_env=token_env, token_file=token_file)
    where = wanted_address(options.address)
    if options.stop and where is None:
        raise UserError(
            "--stop takes tutors of a running cluster down: give --address. A local `tutor serve` ends by Ctrl-C."
        )
    if where is None:  # this machine is the node that needs them
        for variable in file.token_variables if file is not None else [token_env]:
            read_secret("bearer token", variable, token_file)
    try:
        with interruptible(), quiet(log_path("serve")) as console:
            _serve(console, configs, http, file, where, options.stop)
    except KeyboardInterrupt:
        raise typer.Exit(0 if where is None else EXIT_INTERRUPTED) from None


def _serve(
    console: Console,
    configs: list[TutorConfig],
    http: HttpConfig,
    file: ServeFile | None,
    address: str | None,
    stop: bool,
) -> None:
    import signal

    from tune_sweeps.cluster.session import local_cpus, ray_cluster
    from tutor_service import serving
    from tutor_service.serving.serve_file import deploy_serve_file

    needed = sum(config.scaling.num_cpus * config.scaling.max_replicas for config in configs)
    with ray_cluster(address, local_cpus(needed)) as cluster:
        names = [config.name for config in configs]
        if stop:
            serving.delete(names)
            console.print(f"taken down: {', '.join(names)}")
            return
        _refuse_held(names)
        if file is not None:
            deploy_serve_file(file, console.print)
        else:
            serving.deploy(configs, http=http, progress=console.print)
        for name in names:
            console.print(f"tutor '{name}' answers at http://{http.host}:{http.port}/{name}/advise")
        if not cluster.local:
            return
        console.print("Ctrl-C takes them down")
        while True:
            signal.pause()


def _refuse_held(names: list[str]) -> None:
    """Refuse to serve what sweeps have up: it would be taken down with the last of them."""
    from tutor_service import serving
    from tutor_service.errors import UserError

    holders = serving.lease_holders()
    for name in names:
        if name in holders:
            by = ", ".join(holders[name]) or "nobody any more, and is being taken down"
            raise UserError(
                f"tutor '{name}' runs on this cluster for commands that take it down at their end: it is held by {by}. "
                "Serve it when they have ended, or another one under a name of its own."
            )


def _with_replicas(configs: list[TutorConfig], replicas: list[str]) -> list[TutorConfig]:
    from tutor_service.errors import UserError, unknown_name

    wanted: dict[str, int] = {}
    for entry in replicas:
        name, _, number = entry.partition("=")
        if name not in [config.name for config in configs]:
            raise unknown_name("tutor in --replicas", name, [config.name for config in configs])
        if not number.isdigit() or int(number) < 1:
            raise UserError(f"--replicas '{entry}': give a number of at least 1, e.g. {name}=2.")
        wanted[name] = int(number)
    return [
        config.model_copy(
            update={
                "scaling": config.scaling.model_copy(
                    update={"min_replicas": wanted[config.name], "max_replicas": wanted[config.name]}
                )
            }
        )
        if config.name in wanted
        else config
        for config in configs
    ]
