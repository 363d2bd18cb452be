-- Requests the lines of the file that is named first, each once. Each thread takes its share.
local count = 0
function setup(thread)
    thread:set("share", count)
    count = count + 1
end

function init(arguments)
    local shares = tonumber(arguments[2])
    local close = arguments[3] == "close" and "Connection: close\r\n" or ""
    requests = {}
    local number = 0
    for line in io.lines(arguments[1]) do
        if number % shares == share then
            requests[#requests + 1] = "GET " .. line .. " HTTP/1.1\r\nHost: bench\r\n" .. close .. "\r\n"
        end
        number = number + 1
    end
    position = 0
end

function request()
    position = position + 1
    -- Past the end a link comes twice: it is refused, and the run counts as failed.
    if position > #requests then position = 1 end
    return requests[position]
end
