// Drives one Baileys socket: NDJSON events on stdout, NDJSON commands on stdin.
//
//   node driver.mjs MODULES_DIR
//
// Commands:  {"do":"connect","url","authDir","rootKey","pushName"?,"readReceipts"?}
//            "mediaHost"? stands in for the host that Baileys fetches files of the app state from
//            {"do":"send","to","text","id"?,"quote"? (id of a message seen here),"mentions"?}
//            {"do":"sendMedia","to","kind" (image, video, audio, ptt, document, sticker),"length","caption"?}
//            {"do":"download","id" (of a message seen here),"start"?,"end"?}
//            {"do":"read","chat","ids"}  {"do":"presence","kind","to"?}  {"do":"check","number"}
//            {"do":"modify","change","jid"?} (app state, as chatModify takes it)  {"do":"rename","name"}
//            {"do":"logout"}  {"do":"close"}  {"do":"quit"}; each may have a "tag" that the answer repeats.
// Events:    {"event":"qr"|"open"|"closed"|"message"|"update"|"receipt"|"presence"|"chat"|"contact"|"name"|"done"|"failed"
//            |"offline", …}
import { createRequire } from 'node:module'
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { join } from 'node:path'

// The Signal library writes to the console, which is our stdout: events must be alone there.
for (const name of ['log', 'info', 'warn', 'debug']) {
  console[name] = console.error
}

const modules = process.argv[2]
const require = createRequire(join(modules, 'package.json'))
const load = async name => import(pathToFileURL(require.resolve(name)).href)
const {
  default: makeWASocket,
  useMultiFileAuthState,
  downloadMediaMessage,
  WA_CERT_DETAILS,
  DisconnectReason
} = await load('@whiskeysockets/baileys')
const { default: pino } = await load('pino')

const say = event => process.stdout.write(JSON.stringify(event) + '\n')
const logger = pino({ level: process.env.BAILEYS_LOG || 'silent' }, pino.destination(2))

let socket
let wanted
let saving = Promise.resolve()
const sent = new Map()
const sending = new Set()
const seen = new Map()

const textOf = message => {
  const inner = message?.deviceSentMessage?.message ?? message
  return inner?.conversation ?? inner?.extendedTextMessage?.text ?? null
}

// What a text quotes and whom it mentions; null when it does neither.
const contextOf = message => {
  const inner = message?.deviceSentMessage?.message ?? message
  const context = inner?.extendedTextMessage?.contextInfo
  return context
    ? {
        quoted: context.stanzaId ?? null,
        author: context.participant ?? null,
        quotedText: textOf(context.quotedMessage),
        mentions: context.mentionedJid ?? []
      }
    : null
}

// A message by its key; one that is on its way is waited for, because it can be asked for again that early.
const stored = async key => {
  if (!sent.has(key.id)) {
    await Promise.allSettled(sending)
  }
  return sent.get(key.id)
}

// Contents of a file that can be told by its length, and what is announced with it.
const patterned = length => Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 7) & 255))

const mediaContent = (kind, data, caption) => {
  switch (kind) {
    case 'image':
      // With a thumbnail at hand no picture library is needed.
      return { image: data, jpegThumbnail: '/9j/4AA=', width: 2, height: 2, mimetype: 'image/jpeg', caption }
    case 'video':
      return { video: data, jpegThumbnail: '/9j/4AA=', mimetype: 'video/mp4', caption }
    case 'audio':
      return { audio: data, mimetype: 'audio/mp4', seconds: 1 }
    case 'ptt':
      return { audio: data, ptt: true, mimetype: 'audio/ogg; codecs=opus', seconds: 1, waveform: new Uint8Array(64) }
    case 'document':
      return { document: data, mimetype: 'application/pdf', fileName: 'a.pdf' }
    case 'sticker':
      return { sticker: data, mimetype: 'image/webp' }
    default:
      throw new Error(`no such kind ${kind}`)
  }
}

const fetched = globalThis.fetch
const connect = async options => {
  wanted = options
  if (options.mediaHost) {
    globalThis.fetch = (url, init) =>
      fetched(String(url).replace('https://mmg.whatsapp.net/', `https://${options.mediaHost}/`), init)
  }
  const { state, saveCreds } = await useMultiFileAuthState(options.authDir)
  if (WA_CERT_DETAILS && options.rootKey) {
    WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(options.rootKey, 'hex')
  }
  const current = makeWASocket({
    auth: state,
    logger,
    waWebSocketUrl: options.url,
    version: [2, 3000, 1043857760],
    browser: ['Mac OS', 'Chrome', '14.4.1'],
    syncFullHistory: false,
    markOnlineOnConnect: true,
    fireInitQueries: true,
    appStateMacVerification: { patch: true, snapshot: true },
    getMessage: stored
  })
  socket = current
  const { ev } = current
  ev.on('creds.update', update => {
    if (update.me?.name) {
      say({ event: 'name', name: update.me.name })
    }
    saving = saving.then(saveCreds)
  })
  ev.on('connection.update', async update => {
    if (update.qr) {
      say({ event: 'qr', qr: update.qr })
    }
    if (update.receivedPendingNotifications) {
      say({ event: 'offline' })
    }
    if (update.connection === 'open') {
      if (options.pushName && !current.user.name) {
        // Without a name, which a phone hands over by app state, Baileys never shows itself, and so gives no ticks.
        ev.emit('creds.update', { me: { ...current.user, name: options.pushName } })
        await current.sendPresenceUpdate('available')
      }
      say({ event: 'open', me: current.user })
    }
    if (update.connection === 'close') {
      await saving
      const code = update.lastDisconnect?.error?.output?.statusCode ?? null
      say({ event: 'closed', code, error: String(update.lastDisconnect?.error?.message ?? '') })
      if (code === DisconnectReason.restartRequired && socket === current && wanted) {
        await connect(wanted)
      }
    }
  })
  ev.on('messages.upsert', ({ messages, type }) => {
    for (const whole of messages) {
      const { key, message, pushName, status, messageTimestamp, messageStubType, messageStubParameters } = whole
      seen.set(key.id, whole)
      say({
        event: 'message',
        type,
        key,
        text: textOf(message),
        context: contextOf(message),
        kinds: message ? Object.keys(message) : [],
        pushName: pushName ?? null,
        status: status ?? null,
        t: Number(messageTimestamp ?? 0),
        stub: messageStubType ?? null,
        stubParameters: messageStubParameters ?? []
      })
    }
  })
  ev.on('messages.update', updates => {
    for (const { key, update } of updates) {
      say({ event: 'update', key, status: update.status ?? null, stub: update.messageStubParameters ?? [] })
    }
  })
  ev.on('message-receipt.update', updates => {
    for (const { key, receipt } of updates) {
      say({ event: 'receipt', key, receipt })
    }
  })
  ev.on('presence.update', update => say({ event: 'presence', ...update }))
  ev.on('messaging-history.set', ({ syncType, progress, messages, chats }) => {
    say({ event: 'history', syncType, progress, messages: messages.length, chats: chats.length })
    for (const { id, muteEndTime, pinned, archived } of chats) {
      say({ event: 'chat', id, muteEndTime, pinned, archived }) // what the app state says is merged into it
    }
  })
  ev.on('chats.update', updates => {
    for (const { id, muteEndTime, pinned, archived, unreadCount } of updates) {
      say({ event: 'chat', id, muteEndTime, pinned, archived, unreadCount })
    }
  })
  for (const name of ['contacts.upsert', 'contacts.update']) {
    ev.on(name, contacts => {
      for (const { id, name, lid, phoneNumber } of contacts) {
        say({ event: 'contact', id, name, lid, phoneNumber })
      }
    })
  }
  ev.on('lid-mapping.update', mapping => say({ event: 'mapping', ...mapping }))
}

const close = async () => {
  wanted = undefined
  const current = socket
  socket = undefined
  if (current) {
    await current.end(undefined)
  }
  await saving
}

const commands = {
  connect,
  send: async ({ to, text, id, quote, mentions }) => {
    if (quote && !seen.has(quote)) {
      throw new Error(`no message ${quote} was seen here`)
    }
    const options = { ...(id && { messageId: id }), ...(quote && { quoted: seen.get(quote) }) }
    const underway = socket.sendMessage(to, { text, ...(mentions && { mentions }) }, options).then(message => {
      sent.set(message.key.id, message.message)
      return { id: message.key.id }
    })
    sending.add(underway)
    return underway.finally(() => sending.delete(underway))
  },
  sendMedia: async ({ to, kind, length, caption }) => {
    const message = await socket.sendMessage(to, mediaContent(kind, patterned(length), caption))
    sent.set(message.key.id, message.message)
    seen.set(message.key.id, message)
    return { id: message.key.id, message: JSON.stringify(message.message) }
  },
  download: async ({ id, start, end }) => {
    const options = { ...(start !== undefined && { startByte: start }), ...(end !== undefined && { endByte: end }) }
    const data = await downloadMediaMessage(seen.get(id), 'buffer', options, { logger })
    return { length: data.length, sha256: createHash('sha256').update(data).digest('hex') }
  },
  read: async ({ chat, ids }) => socket.readMessages(ids.map(id => ({ remoteJid: chat, id, fromMe: false }))),
  presence: async ({ kind, to }) =>
    kind === 'subscribe' ? socket.presenceSubscribe(to) : socket.sendPresenceUpdate(kind, to),
  modify: async ({ change, jid }) => socket.chatModify(change, jid ?? ''),
  rename: async ({ name }) => socket.updateProfileName(name),
  check: async ({ number }) => ({ found: await socket.onWhatsApp(number) }),
  logout: async () => {
    wanted = undefined
    await socket.logout()
  },
  close,
  quit: async () => {
    await close()
    process.exit(0)
  }
}

process.on('unhandledRejection', error => say({ event: 'crash', error: String(error?.stack ?? error) }))
say({ event: 'ready' })
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  const work = commands[command.do]
  if (!work) {
    say({ event: 'failed', tag: command.tag, error: `unknown command ${command.do}` })
    continue
  }
  Promise.resolve()
    .then(() => work(command))
    .then(result => say({ event: 'done', tag: command.tag, result: result ?? null }))
    .catch(error => say({ event: 'failed', tag: command.tag, error: String(error?.stack ?? error) }))
}
await close()
process.exit(0)
