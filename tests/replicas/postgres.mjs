// A PostgreSQL server of the tests' own, from the system's packages: in a temporary directory, on a Unix socket, as a user
// without rights when the tests run as root (initdb refuses root).
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { eventually, start, temporaryDirectory, within } from '../e2e/lib/gateway.mjs';

function binary(name) {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(a) - Number(b)) : [];
  for (const version of versions.reverse()) {
    const file = path.join(root, version, 'bin', name);
    if (existsSync(file)) return file;
  }
  return name;
}

const freePort = () => new Promise((resolve, reject) => {
  const server = createServer().on('error', reject).listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

function unprivileged() {
  if (process.getuid() !== 0) return {};
  const id = (flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

export class Postgres {
  /** `settings`: further ones of the server. `tls`: {cert, key} as PEM. With that or `port` it listens on a port of
   *  127.0.0.1, and clients choose whether they use TLS. */
  static async start({ settings = {}, tls, port = false } = {}) {
    const postgres = new Postgres();
    postgres.settings = settings;
    postgres.directory = await temporaryDirectory();
    postgres.user = unprivileged();
    if (postgres.user.uid) chownSync(postgres.directory, postgres.user.uid, postgres.user.gid);
    chmodSync(postgres.directory, 0o755);
    const made = spawnSync(binary('initdb'), ['-D', path.join(postgres.directory, 'data'), '-U', 'mcpgw', '-A', 'trust',
      '-E', 'UTF8', '--locale=C', '-N', '--no-instructions'], { ...postgres.user, cwd: '/', encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`initdb: ${made.error ?? made.stderr}`);
    if (port || tls) {
      postgres.port = await freePort();
      postgres.settings = { ...postgres.settings, listen_addresses: '127.0.0.1', port: postgres.port };
    }
    if (tls) postgres.place(tls);
    await postgres.run();
    return postgres;
  }

  /** The certificate and key that the next run() has. */
  place({ cert, key }) {
    for (const [name, text] of [['cert', cert], ['key', key]]) {
      const file = path.join(this.directory, `server.${name}`);
      writeFileSync(file, text, { mode: 0o600 });
      if (this.user.uid) chownSync(file, this.user.uid, this.user.gid);
      this.settings = { ...this.settings, [`ssl_${name}_file`]: file };
    }
    this.settings = { ...this.settings, ssl: 'on' };
  }

  async run() {
    const settings = { listen_addresses: '', unix_socket_directories: this.directory, fsync: 'off', shared_buffers: '16MB',
      ...this.settings };
    this.process = start(binary('postgres'), ['-D', path.join(this.directory, 'data'),
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])], { ...this.user, cwd: '/' });
    await eventually('PostgreSQL answers', () => this.psql('postgres', 'SELECT 1', true) === '1', 60000);
  }

  /** SIGINT: orderly; SIGQUIT: as a crash. */
  async stop(signal = 'SIGINT') {
    this.process.child.kill(signal);
    await within(30000, 'the end of PostgreSQL', this.process.exit);
  }

  /** The rows as psql prints them, unaligned. */
  psql(database, sql, quiet = false) {
    const done = spawnSync('psql', ['-h', this.directory, '-p', `${this.port ?? 5432}`, '-U', 'mcpgw', '-d', database, '-v', 'ON_ERROR_STOP=1', '-XqAt'],
      { input: sql, encoding: 'utf8' });
    if (done.status !== 0 && !quiet) throw new Error(done.stderr);
    return done.stdout.trim();
  }

  database(name) {
    this.psql('postgres', `CREATE DATABASE ${name}`);
    return this.url(name);
  }

  url(name, password = '') {
    return `postgres://mcpgw${password ? ':' + password : ''}@${encodeURIComponent(this.directory)}/${name}`;
  }
}
