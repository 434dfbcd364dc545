// Preloaded into a server that cannot tell its port: listens on loopback only and prints the port it got.
import net from 'node:net';

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((argument) => typeof argument === 'function');
  return listen.call(this, { port: Number(port), host: '127.0.0.1' }, () => {
    console.log(`listening ${this.address().port}`);
    callback?.();
  });
};
