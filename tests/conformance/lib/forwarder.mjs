// The suite cannot send a token: a forwarder on loopback adds it and leaves all else as it is, Host and Origin too. It may
// also cut whatever connections there are.
import http from 'node:http';

/** Listens at once and forwards as soon as it is told where to (a URL, its path aside) and as whom: {url, to, cut, stop}. */
export async function forwarder() {
  let hostname, port, token;
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((request, response) => {
    const onward = http.request({
      agent, hostname, port, method: request.method, path: request.url, setHost: false,
      headers: token ? [...request.rawHeaders, 'Authorization', `Bearer ${token}`] : request.rawHeaders,
    }, (answer) => {
      response.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders);
      response.flushHeaders();
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    to(target, as) {
      ({ hostname, port } = new URL(target));
      token = as;
    },
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => server.closeAllConnections(),
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
      agent.destroy();
    }),
  };
}
