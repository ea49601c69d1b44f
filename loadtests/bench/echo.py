"""The yardstick of `bench submit`: the least that aiohttp can do with a JSON body, which is to hand it back."""

import argparse

from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """The JSON that was sent."""
    return web.json_response(await request.json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.router.add_post("/echo", echo)
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, access_log=None, print=None)


if __name__ == "__main__":
    main()
