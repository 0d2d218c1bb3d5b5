// @durable-streams/client, the TypeScript client, against the server whose URL is in the environment.
// Prints one line for each thing that worked; an assertion that fails ends it.
import assert from "node:assert/strict"
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const base = process.env.STREAMS_URL

const tell = (line) => console.log(line)

/** A fetch on a line that loses answers: every third request is carried out, and then sent once more. */
function losingAnswers() {
  let count = 0
  const fetching = async (...args) => {
    const answer = await fetch(...args)
    count += 1
    if (count % 3) return answer
    await answer.arrayBuffer()
    fetching.lost += 1
    return fetch(...args)
  }
  fetching.lost = 0
  return fetching
}

/** Everything that a reader is given, until the stream is closed. */
function readToTheEnd(following) {
  const seen = []
  return new Promise((resolve, reject) => {
    following.closed.catch(reject)
    following.subscribeJson(async (batch) => {
      seen.push(...batch.items)
      if (batch.streamClosed) resolve(seen)
    })
  })
}

async function exactlyOnce(live) {
  const url = `${base}/v1/stream/exactly-once-${live}`
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  const reading = readToTheEnd(await stream({ url, offset: "-1", live, json: true }))
  const losing = losingAnswers()
  const failures = []
  const producer = new IdempotentProducer(handle, "p", {
    fetch: losing,
    maxBatchBytes: 200,
    onError: (error) => failures.push(error),
  })
  const wanted = Array.from({ length: 500 }, (_, n) => ({ n, text: "a\nb \u00e9" }))
  for (const item of wanted) producer.append(JSON.stringify(item))
  await producer.flush()
  await producer.close()
  assert.deepEqual(failures, [])
  assert.deepEqual(await reading, wanted)
  assert.ok(losing.lost > 5, `only ${losing.lost} answers were lost`)
  tell(`exactly once, followed by ${live}`)
}

async function resumed(live) {
  const url = `${base}/v1/stream/resumed-${live}`
  const handle = await DurableStream.create({ url, contentType: "text/plain" })
  let expected = ""
  for (let n = 0; n < 5; n += 1) {
    await handle.append(`before ${n}\n`, { seq: `a${n}` })
    expected += `before ${n}\n`
  }
  const past = await stream({ url, offset: "-1", live: false })
  assert.equal(await past.text(), expected)
  const { offset } = await handle.head()
  assert.equal(past.offset, offset)
  const following = await stream({ url, offset, live })
  const next = new Promise((resolve) => following.subscribeText(async (chunk) => chunk.text && resolve(chunk.text)))
  await handle.append("after")
  assert.equal(await next, "after")
  following.cancel()
  await assert.rejects(handle.append("late", { seq: "a0" }))
  tell(`resumed by ${live}`)
}

async function bytesAndTheEnd() {
  const url = `${base}/v1/stream/bytes`
  const handle = await DurableStream.create({ url, contentType: "application/octet-stream", ttlSeconds: 60 })
  const bytes = Uint8Array.from({ length: 100_000 }, (_, n) => (n * 7) % 256)
  await handle.append(bytes.slice(0, 70_000))
  await handle.close({ body: bytes.slice(70_000) })
  await handle.close()
  await assert.rejects(handle.append(new Uint8Array([1])), (error) => error.headers["stream-closed"] === "true")
  for (const live of [false, "sse", "long-poll"]) {
    const res = await stream({ url, offset: "-1", live })
    assert.deepEqual(Buffer.from(await res.body()), Buffer.from(bytes))
  }
  const head = await DurableStream.head({ url })
  assert.equal(head.streamClosed, true)
  await handle.delete()
  assert.equal((await DurableStream.head({ url })).exists, false)
  tell("bytes, the end, deletion")
}

async function fenced() {
  const url = `${base}/v1/stream/fenced`
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  const failures = []
  const first = new IdempotentProducer(handle, "p", { onError: (error) => failures.push(error) })
  first.append("1")
  await first.flush()
  const second = new IdempotentProducer(handle, "p", { epoch: 1 })
  second.append("2")
  await second.flush()
  first.append("3")
  await first.flush()
  assert.equal(failures[0]?.name, "StaleEpochError")
  // one that does not know its epoch is told, and takes the next
  const third = new IdempotentProducer(handle, "p", { autoClaim: true })
  third.append("4")
  await third.flush()
  assert.equal(third.epoch, 2)
  const res = await stream({ url, offset: "-1", live: false })
  assert.deepEqual(await res.json(), [1, 2, 4])
  tell("a producer is fenced")
}

async function news() {
  const url = `${base}/news`
  const following = await stream({ url, offset: "now", live: "sse", json: true })
  const first = new Promise((resolve) => {
    following.subscribeJson(async (batch) => batch.items.length && resolve(batch.items))
  })
  const handle = new DurableStream({ url, contentType: "application/json" })
  await handle.append(JSON.stringify({ headline: "here" }))
  assert.deepEqual(await first, [{ headline: "here" }])
  following.cancel()
  await assert.rejects(DurableStream.create({ url, contentType: "application/json" }))
  tell("a topic of the application")
}

for (const live of ["sse", "long-poll"]) {
  await exactlyOnce(live)
  await resumed(live)
}
await bytesAndTheEnd()
await fenced()
await news()
