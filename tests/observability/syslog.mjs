// A syslog daemon for a test: a datagram socket, which Node.js does not have, by a few lines of Python.
import { unlink } from 'node:fs/promises';
import path from 'node:path';
import { start, temporaryDirectory } from '../e2e/lib/gateway.mjs';

const PROGRAM = `
import json, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1])
print(json.dumps("listening"), flush=True)
while True:
    print(json.dumps(server.recv(1 << 20).decode()), flush=True)
`;

export class Server {
  static async start() {
    const server = new Server();
    server.path = path.join(await temporaryDirectory(), 'log');
    server.messages = [];
    await server.restart();
    return server;
  }

  async restart() {
    this.process = start('python3', ['-c', PROGRAM, this.path]);
    await this.process.line('syslog listens', (line) => JSON.parse(line) === 'listening');
  }

  get messages() {
    return [...this.kept, ...(this.process ? this.process.lines.slice(1).map((line) => JSON.parse(line)) : [])];
  }

  set messages(messages) {
    this.kept = messages;
  }

  first(match) {
    return this.process.line('a syslog message', (line) => {
      const text = JSON.parse(line);
      return match(text) ? text : null;
    });
  }

  async stop() {
    const all = this.messages;
    await this.process.stop('SIGKILL');
    this.process = null;
    this.kept = all;
    await unlink(this.path);
  }
}
