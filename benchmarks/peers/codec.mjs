// Encodes and decodes the given node with Baileys; prints operations in a second.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.argv[2] + '/')
const { encodeBinaryNode, decodeBinaryNode } = await import(
  pathToFileURL(require.resolve('@whiskeysockets/baileys')).href
)
const wire = Buffer.from(JSON.parse(readFileSync(0, 'utf8')).wire, 'hex')
const node = await decodeBinaryNode(wire)

async function rate(step) {
  for (let i = 0; i < 2000; i++) await step()
  const start = process.cpuUsage()
  let done = 0
  for (;;) {
    for (let i = 0; i < 200; i++) await step()
    done += 200
    const spent = process.cpuUsage(start)
    const seconds = (spent.user + spent.system) / 1e6
    if (seconds >= 1) return done / seconds
  }
}

const encode = await rate(() => encodeBinaryNode(node))
const decode = await rate(() => decodeBinaryNode(wire))
console.log(JSON.stringify({ encode, decode }))
