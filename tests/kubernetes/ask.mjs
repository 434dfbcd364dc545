// One request to an API server as its administrator.
import http from 'node:http';
import https from 'node:https';

/** `api`: {url, ca, adminToken}; `body` is a text or an object. Gives {status, headers, body}. */
export function ask(api, method, path, body, type = 'application/json', token = api.adminToken) {
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const url = new URL(api.url + path);
    const request = (url.protocol === 'https:' ? https : http).request(url, { method, ca: api.ca, agent: false,
      headers: { Authorization: `Bearer ${token}`, ...(text ? { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) } : {}) } }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const answer = Buffer.concat(chunks).toString();
        const json = !path.includes('watch=true') && /json/.test(response.headers['content-type'] ?? '');
        resolve({ status: response.statusCode, headers: response.headers, body: json ? JSON.parse(answer) : answer });
      });
    });
    request.on('error', reject);
    request.end(text);
  });
}
