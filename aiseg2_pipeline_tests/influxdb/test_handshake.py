"""A server that ends the TLS handshake is reported with the settings to check."""

import socket
import threading

import pytest

from aiseg2_pipeline.influxdb.client import InfluxWriter, Unavailable


def test_a_handshake_that_is_cut_is_one_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_each() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.recv(4096)
                connection.close()

        thread = threading.Thread(target=close_each)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with (
            InfluxWriter(url, "t0ken", "home", "power", timeout_s=5) as writer,
            pytest.raises(Unavailable, match=f"The secure connection to {url} could not be made: check INFLUXDB"),
        ):
            writer.write(["power,summary=a value=1 1"])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
