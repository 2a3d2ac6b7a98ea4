// Two parties of the npm library libsignal in memory; prints operations in a second.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const fromBaileys = createRequire(createRequire(process.argv[2] + '/').resolve('@whiskeysockets/baileys'))
const signal = fromBaileys('libsignal')
const plaintext = Buffer.from(JSON.parse(readFileSync(0, 'utf8')).plaintext, 'hex')

class Storage {
  constructor() {
    this.identity = signal.curve.generateKeyPair()
    this.signed = signal.curve.generateKeyPair()
    this.sessions = new Map()
  }
  async loadSession(id) { return this.sessions.get(id) ?? null }
  async storeSession(id, record) { this.sessions.set(id, record) }
  isTrustedIdentity() { return true }
  async loadPreKey() { return undefined }
  async removePreKey() {}
  loadSignedPreKey() { return { privKey: this.signed.privKey, pubKey: this.signed.pubKey } }
  getOurRegistrationId() { return 1 }
  getOurIdentity() { return { privKey: this.identity.privKey, pubKey: this.identity.pubKey } }
}

async function conversation() {
  const [a, b] = [new Storage(), new Storage()]
  const signature = signal.curve.calculateSignature(b.identity.privKey, b.signed.pubKey)
  const [toB, toA] = [new signal.ProtocolAddress('b', 1), new signal.ProtocolAddress('a', 1)]
  await new signal.SessionBuilder(a, toB).initOutgoing({
    registrationId: 1,
    identityKey: b.identity.pubKey,
    signedPreKey: { keyId: 1, publicKey: b.signed.pubKey, signature }
  })
  const [alice, bob] = [new signal.SessionCipher(a, toB), new signal.SessionCipher(b, toA)]
  const first = await alice.encrypt(plaintext)
  await bob.decryptPreKeyWhisperMessage(Buffer.from(first.body))
  await alice.decryptWhisperMessage(Buffer.from((await bob.encrypt(plaintext)).body))
  return [alice, bob]
}

async function rate(step, seconds = 1, batch = 20) {
  for (let i = 0; i < 40; i++) await step()
  const start = process.cpuUsage()
  let done = 0
  for (;;) {
    for (let i = 0; i < batch; i++) await step()
    done += batch
    const spent = process.cpuUsage(start)
    const used = (spent.user + spent.system) / 1e6
    if (used >= seconds) return done / used
  }
}

const [sender] = await conversation()
const encrypt = await rate(() => sender.encrypt(plaintext))

const [alice, bob] = await conversation()
const waiting = []
for (let i = 0; i < 1900; i++) waiting.push(Buffer.from((await alice.encrypt(plaintext)).body))
let next = 0
const started = process.cpuUsage()
while (next < waiting.length) await bob.decryptWhisperMessage(waiting[next++])
const spent = process.cpuUsage(started)
const decrypt = next / ((spent.user + spent.system) / 1e6)

const [one, two] = await conversation()
const turn = 2 * (await rate(async () => {
  await two.decryptWhisperMessage(Buffer.from((await one.encrypt(plaintext)).body))
  await one.decryptWhisperMessage(Buffer.from((await two.encrypt(plaintext)).body))
}, 1, 5))

console.log(JSON.stringify({ encrypt, decrypt, turn }))
