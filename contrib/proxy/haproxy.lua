-- Sends Winglet's control listener a copy of what the Panel calls when a user has lost access, for
-- haproxy.cfg: /etc/haproxy/winglet.lua. HAProxy 2.5 or later, built with Lua (Debian's is).
-- Winglet's answer is thrown away. If it is not there, the call goes on to Wings after three seconds.

local control = "http://127.0.0.1:8082"

core.register_action("copy_to_winglet", { "http-req" }, function(txn)
    local body = txn.sf:req_body() or ""
    local headers = {
        ["content-type"] = { "application/json" },
        ["content-length"] = { tostring(#body) },
        ["authorization"] = { txn.sf:req_hdr("authorization") or "" },
    }
    pcall(function()
        core.httpclient():post({
            url = control .. txn.sf:path(), headers = headers, body = body, timeout = 2000,
        })
    end)
end)
