// Leaves in the lock file the one package whose bundle is used: with what that was built of, npm would fetch 200 MB.
import { readFileSync, writeFileSync } from 'node:fs';

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const name = 'node_modules/@scalar/api-reference';
const { version, integrity, license } = lock.packages[name];
lock.packages = { '': lock.packages[''], [name]: { version, integrity, license } };
writeFileSync('package-lock.json', JSON.stringify(lock, null, 2) + '\n');
