// A server before the gateway, as front ends have one: files of its own, and all else goes on.
import http from "node:http";

// Serve files by path ([content type, bytes]) on a free port. Returns the server, listening.
// With `host`, the gateway sees that one in the place of the browser's.
export async function serveBefore(gatewayURL, files, host) {
  const server = http.createServer((request, response) => {
    const file = files(new URL(request.url, gatewayURL).pathname);
    if (file) {
      response.writeHead(200, { "Content-Type": file[0] });
      return response.end(file[1]);
    }
    const headers = { ...request.headers, ...(host && { host }) };
    const url = new URL(request.url, gatewayURL);
    const onward = http.request(url, { method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
