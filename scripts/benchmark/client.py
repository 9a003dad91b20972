"""One client of transports.py as a program: WHO receive PORT COUNT QOS NAME, or WHO send PORT COUNT."""

import asyncio
import sys
import time

BODY = b'{"ts":1764000000.000000,"seq":%d,"v":20.125}'
TOPICS = [f"plant/d{i}/v" for i in range(1000)]
TOGETHER = 256  # publications that ours joins, as a turn does


def told(begun: float, cpu: float) -> None:
    print(f"SENT {time.perf_counter() - begun} {time.process_time() - cpu}", flush=True)


def paho_receives(port: int, count: int, qos: int, name: str) -> None:
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name)
    seen = 0

    def take(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            client.disconnect()

    client.on_connect = lambda *_: client.subscribe("plant/#", qos)
    client.on_message = take
    client.connect("127.0.0.1", port)
    client.loop_forever()


def ours_receives(port: int, count: int, qos: int, name: str) -> None:
    from transom.edge.inbox import Inbox
    from transom.edge.mqtt import Connection
    from transom.edge.wire import BrokerOptions

    inbox, seen = Inbox(1_000_000), 0
    connection = Connection(BrokerOptions("127.0.0.1", port, qos=qos, client_id=name), filters=["plant/#"], inbox=inbox)
    connection.start()
    while seen < count:
        inbox.wait(0.25)
        drained = inbox.drain()
        seen += len(drained.messages)
        connection.acknowledge([token for token in drained.tokens if token is not None])


def gmqtt_receives(port: int, count: int, qos: int, name: str) -> None:
    from gmqtt import Client

    async def run() -> None:
        client, done, seen = Client(name), asyncio.Event(), 0

        async def take(*_: object) -> int:
            nonlocal seen
            seen += 1
            if seen == count:
                done.set()
            return 0

        client.on_connect = lambda *_: client.subscribe("plant/#", qos=qos)
        client.on_message = take
        await client.connect("127.0.0.1", port)
        await done.wait()
        await client.disconnect()

    asyncio.run(run())


def paho_sends(port: int, count: int) -> None:
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.01)
    print("READY", flush=True)
    begun, cpu, last = time.perf_counter(), time.process_time(), None
    for i in range(count):
        last = client.publish(TOPICS[i % 1000], BODY % i)
    if last is not None:
        last.wait_for_publish(120)
    told(begun, cpu)
    client.disconnect()
    client.loop_stop()


def ours_sends(port: int, count: int) -> None:
    from transom.dialects.plain import Publication
    from transom.edge.inbox import Inbox
    from transom.edge.mqtt import Connection
    from transom.edge.wire import BrokerOptions

    connection = Connection(BrokerOptions("127.0.0.1", port, client_id="ours"), filters=["nothing"], inbox=Inbox(1))
    connection.start()
    connection.wait_ready(10)
    print("READY", flush=True)
    begun, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, TOGETHER):
        several = [
            Publication(TOPICS[i % 1000], BODY % i, 0, False) for i in range(start, min(count, start + TOGETHER))
        ]
        connection.publish_many(several)
        connection.wait_writable()
    while connection._client.unwritten():
        time.sleep(0.001)
    told(begun, cpu)


def gmqtt_sends(port: int, count: int) -> None:
    from gmqtt import Client

    async def run() -> None:
        client = Client("gmqtt-sends")
        await client.connect("127.0.0.1", port)
        print("READY", flush=True)
        begun, cpu = time.perf_counter(), time.process_time()
        for i in range(count):
            client.publish(TOPICS[i % 1000], BODY % i)
            if i % TOGETHER == 0:
                await asyncio.sleep(0)  # or nothing is written until the end
        await asyncio.sleep(0)
        told(begun, cpu)
        await client.disconnect()

    asyncio.run(run())


if __name__ == "__main__":
    who, what, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if what == "receive":
        globals()[f"{who}_receives"](port, count, int(sys.argv[5]), sys.argv[6])
    else:
        globals()[f"{who}_sends"](port, count)
