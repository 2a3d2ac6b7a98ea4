// Baileys' multi-file auth state: one session record written per message, and 5,000 of them read. It never syncs.
import { readFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const fromModules = createRequire(process.argv[2] + '/')
const { useMultiFileAuthState } = await import(fromModules.resolve('@whiskeysockets/baileys'))
const given = JSON.parse(readFileSync(0, 'utf8'))
const record = JSON.parse(given.record)
const directory = mkdtempSync(join(tmpdir(), 'filestore-'))

try {
  const { state } = await useMultiFileAuthState(directory)
  const write = async (parallel, count) => {
    const started = process.hrtime.bigint()
    for (let done = 0; done < count; done += parallel) {
      await Promise.all(Array.from({ length: parallel }, (_, n) =>
        state.keys.set({ session: { [`${n}.0`]: record } })))
    }
    return Number(process.hrtime.bigint() - started) / 1e6 / count
  }
  const writes = {}
  for (const parallel of given.parallel) writes[parallel] = await write(parallel, given.count)
  const names = Array.from({ length: given.peers }, (_, n) => `${n}.0`)
  for (const name of names) await state.keys.set({ session: { [name]: record } })
  const started = process.hrtime.bigint()
  await state.keys.get('session', names)
  console.log(JSON.stringify({ writes, loadMs: Number(process.hrtime.bigint() - started) / 1e6 }))
} finally {
  rmSync(directory, { recursive: true })
}
