// The suite of @durable-streams/server-conformance-tests, against the server whose URL is in the environment.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({ baseUrl: process.env.STREAMS_URL })
