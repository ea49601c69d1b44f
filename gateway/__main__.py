"""`python -m gateway` serves; `… keys create TENANT | list | revoke ID` handles API keys, `… links rotate | revoke`
the secrets behind signed URLs.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.access.keys import KeyFile, KeysFileError
from gateway.config import GatewaySettings
from gateway.pictures.link_secrets import LinkSecretFile, LinkSecretsError
from infra import lifecycle, settings, telemetry
from infra.clock import wall_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. `arguments`: of the command line; None: those of this process."""
    asked = _parser().parse_args(arguments)
    try:
        config = settings.load(GatewaySettings)
        if asked.command in ("keys", "links"):
            lifecycle.keep_private()
        if asked.command == "keys":
            return _keys(KeyFile(config.keys_path), asked)
        if asked.command == "links":
            return _links(config, asked)
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED
    except KeysFileError as error:
        lifecycle.print_config_error(lifecycle.ConfigError(f"keys file {error}"))
        return lifecycle.EXIT_MISCONFIGURED
    except LinkSecretsError as error:
        lifecycle.print_config_error(lifecycle.ConfigError(f"link secrets {error}"))
        return lifecycle.EXIT_MISCONFIGURED
    from gateway.app import serve  # noqa: PLC0415  (half a second of imports that `keys` and `links` do not need)

    flush = telemetry.set_up("darkroom-gateway", config)
    gc.freeze()  # imported objects live as long as the process: full collections need not traverse them
    try:
        return lifecycle.run(lambda shutdown: serve(config, shutdown))
    finally:
        flush()


def _keys(file: KeyFile, asked: argparse.Namespace) -> int:
    match asked.action:
        case "create":
            try:
                key = file.create(asked.tenant, now_ms=wall_ms())
            except ValueError as error:
                raise lifecycle.ConfigError(str(error)) from None
            print("This key is shown once and stored hashed:", file=sys.stderr)
            print(key)
        case "revoke":
            if not file.revoke(asked.id, now_ms=wall_ms()):
                raise lifecycle.ConfigError("there is no valid key with this id; `keys list` shows all")
            print("Signed URLs of its images work until they expire; `links revoke` ends all of them.", file=sys.stderr)
        case _:
            for record in file.read():
                created = datetime.fromtimestamp(record.created_at_ms / 1000, UTC).isoformat(timespec="seconds")
                print(f"{record.id}  {'revoked' if record.revoked_at_ms else 'valid  '}  {created}  {record.tenant}")
    return 0


def _links(config: GatewaySettings, asked: argparse.Namespace) -> int:
    if config.link_secrets:
        raise lifecycle.ConfigError(
            "the secrets behind signed URLs come from DARKROOM_GATEWAY_LINK_SECRET: put a new one before the others "
            "there, and take the last one out once the URLs that it signed have expired"
        )
    file = LinkSecretFile(config.link_secrets_path, rotate_days=0)
    file.load(wall_ms())
    file.rotate(wall_ms(), keep=asked.action == "rotate")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="darkroom's public API")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve until SIGTERM (the default)")
    keys = commands.add_parser("keys", help="create, list and revoke API keys").add_subparsers(
        dest="action", required=True
    )
    keys.add_parser("create", help="print a new key").add_argument("tenant")
    keys.add_parser("list", help="ids, states and tenants; secrets are not kept")
    keys.add_parser("revoke", help="end a key within seconds").add_argument("id")
    links = commands.add_parser("links", help="the secrets behind signed URLs of images").add_subparsers(
        dest="action", required=True
    )
    links.add_parser("rotate", help="sign with a new secret; URLs already issued stay valid")
    links.add_parser("revoke", help="sign with a new secret, and end every URL already issued within seconds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
